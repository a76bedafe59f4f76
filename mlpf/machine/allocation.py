"""Divide GPUs and cores of this machine among workers. Asks the drivers, without loading TensorFlow."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlpf.errors import ConfigError
from mlpf.machine.devices import hardware, hides_all

# AMD: HIP_VISIBLE_DEVICES selects among the GPUs that ROCR_VISIBLE_DEVICES leaves. HIP also obeys
# CUDA_VISIBLE_DEVICES. If inner variables are set, they are divided, otherwise the outer one.
_INNER = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
_OUTER = ("ROCR_VISIBLE_DEVICES",)
_HABANA = ("HABANA_VISIBLE_MODULES",)

_QUERY_SECONDS = 60


@dataclass(frozen=True)
class DeviceGroup:
    """GPUs and cores of one worker.

    Attributes:
        environment: variables that show its GPUs and hide all others.
        num_gpus: number of its GPUs.
        num_cpus: threads of its trials.
        cpus: cores that it is bound to; empty = not bound.
    """

    environment: dict[str, str] = field(default_factory=dict)
    num_gpus: int = 0
    num_cpus: int = 1
    cpus: frozenset[int] = frozenset()


def visible_gpus() -> dict[str, list[str]]:
    """Return environment variable -> GPUs that it may show, for each variable to set for workers.

    Names of GPUs in the environment are kept: numbers, UUIDs and slices (``MIG-...``). If no variable is set,
    the drivers are asked: ``nvidia-smi``, ``rocm-smi``, then the device files.
    """
    for names in (_INNER, _OUTER, _HABANA):
        found = {name: _entries(os.environ[name], name) for name in names if name in os.environ}
        if found:
            return found
    nvidia = _listed_by("nvidia-smi", "-L")
    if nvidia is not None:
        return {_INNER[0]: parse_nvidia_smi(nvidia)}
    rocm = _listed_by("rocm-smi", "--showid")
    if rocm is not None:
        numbers = sorted({int(n) for n in re.findall(r"^GPU\[(\d+)\]", rocm, re.MULTILINE)})
        return {_INNER[1]: [str(n) for n in numbers]}
    counts = hardware()
    if "nvidia" in counts:
        return {_INNER[0]: [str(n) for n in range(counts["nvidia"])]}
    if "rocm" in counts:
        return {_INNER[1]: [str(n) for n in range(counts["rocm"])]}
    return {}


def parse_nvidia_smi(text: str) -> list[str]:
    """Return the GPUs of ``nvidia-smi -L`` by number, or all by UUID if a GPU is divided into MIG slices."""
    uuids = re.findall(r"^(\s*)(?:GPU|MIG) .*\(UUID: ([^)\s]+)\)", text, re.MULTILINE)
    whole = [uuid for indent, uuid in uuids if not indent]
    if len(whole) == len(uuids):
        return [str(n) for n in range(len(whole))]
    usable: list[str] = []
    for indent, uuid in uuids:
        if indent and usable and usable[-1] in whole:
            usable.pop()  # the GPU of this first slice is not usable as a whole
        usable.append(uuid)
    return usable


def device_groups(
    num_workers: int | None, gpus_per_trial: int | None, cpus_per_trial: int | None, unit: str = "trial"
) -> list[DeviceGroup]:
    """Divide the GPUs and cores that this process may use among workers.

    Args:
        num_workers: workers; None = one per group of GPUs, or one without GPUs.
        gpus_per_trial: GPUs of each; None = one if there are GPUs.
        cpus_per_trial: cores of each; None = an equal share. Workers are bound to their cores.
        unit: what a worker runs, for the names of options in errors.

    Raises:
        ConfigError: more GPUs or cores than there are.
    """
    variables = visible_gpus()
    num_gpus = min((len(entries) for entries in variables.values()), default=0)
    each = min(num_gpus, 1) if gpus_per_trial is None else gpus_per_trial
    if num_workers is None:
        num_workers = max(num_gpus // each, 1) if each else 1
    if num_workers * each > num_gpus:
        raise ConfigError(
            f"{num_workers} worker(s) with {each} GPU(s) each need {num_workers * each} GPUs, this machine "
            f"shows {num_gpus}{_as_set(variables)}; give fewer --workers or --gpus-per-{unit}"
        )
    cores = usable_cores()
    threads = max(len(cores) // num_workers, 1) if cpus_per_trial is None else cpus_per_trial
    enough = num_workers * threads <= len(cores)
    if not enough and cpus_per_trial is not None:
        raise ConfigError(
            f"{num_workers} worker(s) with {threads} core(s) each need {num_workers * threads} cores, this "
            f"process may use {len(cores)}; give fewer --workers or --cpus-per-{unit}"
        )
    hidden = dict.fromkeys(_INNER, "") | {n: "" for n in _HABANA if n in os.environ}
    groups = []
    for i in range(num_workers):
        shown = {name: ",".join(gpus[i * each : (i + 1) * each]) for name, gpus in variables.items()}
        own = frozenset(cores[i * threads : (i + 1) * threads]) if enough else frozenset()
        groups.append(DeviceGroup(shown if each else hidden, each, threads, own))
    return groups


def usable_cores(root: Path = Path("/")) -> list[int]:
    """Return the cores that this process may use, sorted by socket and physical core.

    Args:
        root: root of the file system.
    """
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return list(range(os.cpu_count() or 1))

    def place(cpu: int) -> tuple[int, int, int]:
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        try:
            socket = int((folder / "physical_package_id").read_text(encoding="utf-8"))
            return (socket, int((folder / "core_id").read_text(encoding="utf-8")), cpu)
        except (OSError, ValueError):
            return (0, cpu, cpu)

    return sorted(os.sched_getaffinity(0), key=place)


def bind(process_id: int, cpus: frozenset[int]) -> None:
    """Bind a process and its future children to cores; do nothing if there are none."""
    if cpus and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(process_id, cpus)
        except ProcessLookupError:
            return  # it has ended already


def _entries(value: str, name: str) -> list[str]:
    """Return the devices named in a variable. Like drivers, stop at the first entry that is no device."""
    if value.strip().lower() == "all" and name in _HABANA:
        return [str(n) for n in range(hardware().get("hpu", 0))]
    entries: list[str] = []
    for entry in value.split(","):
        if hides_all(entry):
            break
        entries.append(entry.strip())
    return entries


def _listed_by(program: str, *arguments: str) -> str | None:
    """Return the output of a driver's tool; None if it is missing or finds no driver."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _as_set(variables: dict[str, Sequence[str]] | dict[str, list[str]]) -> str:
    named = [f"{name}={os.environ[name]}" for name in variables if name in os.environ]
    return f" ({', '.join(named)})" if named else ""
