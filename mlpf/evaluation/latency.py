"""Time of a forward pass against batch size and number of elements, and the exponent of its growth."""

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Takes [B, N, F] float32 and returns when the result is computed.
Pass = Callable[[npt.NDArray[np.float32]], Any]

# Below this number of elements fixed costs hide the scaling of a model.
MIN_ELEMENTS_OF_FIT = 512
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class Latency:
    """Forward passes of one engine at one shape.

    Attributes:
        engine: name of the engine that ran the model.
        batch_size: events per pass B.
        num_elements: elements per event N, padding included.
        p50_ms, p95_ms: quantiles of the time of one pass.
        events_per_second: B over the median time.
        peak_memory_mb: largest resident memory of the process during the passes; None if the system
            does not report it.
        first_ms: the first pass, with tracing and compilation.
        num_runs: passes of the quantiles, without the first one.
    """

    engine: str
    batch_size: int
    num_elements: int
    p50_ms: float
    p95_ms: float
    events_per_second: float
    peak_memory_mb: float | None
    first_ms: float
    num_runs: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def measure(engines: Mapping[str, Pass], events: npt.NDArray[np.float32], num_runs: int) -> list[Latency]:
    """Time every engine on the same events.

    Passes of the engines alternate, so that other load of the machine is the same for all.


    Args:
        engines: name -> forward pass.
        events: [B, N, F].
        num_runs: timed passes of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    first, peak = {}, {}
    for name, forward in engines.items():
        first[name] = _timed(forward, events)
        reset = _reset_peak_memory()
        forward(events)
        peak[name] = _peak_memory_mb() if reset else None
    for _ in range(num_runs):
        for name, forward in engines.items():
            seconds[name].append(_timed(forward, events))
    size, num_elements = events.shape[:2]
    found = []
    for name, times in seconds.items():
        p50, p95 = (float(q) for q in np.quantile(times, (0.5, 0.95)))
        rate = size / p50
        found.append(
            Latency(
                name, size, num_elements, 1e3 * p50, 1e3 * p95, rate, peak[name], 1e3 * first[name], num_runs
            )
        )
    return found


def scaling_exponents(latencies: Sequence[Latency]) -> dict[tuple[str, int], float]:
    """Fit time ~ N^a for N of at least ``MIN_ELEMENTS_OF_FIT``.

    Returns:
        (engine, batch size) -> a, if at least two sizes were measured. 1 is linear, 2 quadratic.
    """
    points: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for x in latencies:
        if x.num_elements >= MIN_ELEMENTS_OF_FIT:
            points.setdefault((x.engine, x.batch_size), []).append((x.num_elements, x.p50_ms))
    exponents = {}
    for key, values in points.items():
        numbers, times = np.log(np.array(values)).T
        if len(set(numbers)) > 1:
            exponents[key] = float(np.polyfit(numbers, times, 1)[0])
    return exponents


def _timed(forward: Pass, events: npt.NDArray[np.float32]) -> float:
    start = time.perf_counter()
    forward(events)
    return time.perf_counter() - start


def _reset_peak_memory() -> bool:
    """Reset the peak of the system's memory counter; False if the system cannot (only Linux can)."""
    try:
        # Freed memory that the process still holds would hide the memory of the next pass.
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return False
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="utf-8")
    except OSError:
        return False
    return True


def _peak_memory_mb() -> float | None:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000  # the unit is kB
    return None
