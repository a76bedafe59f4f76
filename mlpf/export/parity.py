"""Comparison of an ONNX graph with Keras in float32.

Graph layers sort elements into bins. For an element on the edge between two bins rounding decides, and
programs round differently. Each graph is therefore compared twice: with Keras sorting the elements itself,
and with Keras using the order of the graph. The second difference is arithmetic only.

Arithmetic can be ill-conditioned too: a small output may be the difference of large numbers. If a float32
output differs by more than the tolerance, Keras runs again on inputs changed by about their last digit. This
measures the effect of one digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import onnx

from mlpf.export.conversion import order_names
from mlpf.export.onnx_session import open_session
from mlpf.export.runtimes import OUTPUT_NAME, ExportError
from mlpf.export.tracing import given_orders, recorded_orders
from mlpf.forward import eager_forward
from mlpf.models.interface import OUTPUT_NAMES, element_mask, output_widths

# Largest allowed difference of float32.
TOLERANCE = 1e-4
# Relative changes of the input that measure the effect of its last digits; their number; and the factor by
# which a graph may exceed their effect.
PERTURBATION = 1e-6
NUM_PERTURBATIONS = 8
NOISE_FACTOR = 10.0
# Largest fraction of elements that may differ from Keras by more than TOLERANCE for this reason.
MAX_UNSTABLE = 0.1
# Largest fraction of elements that float32 may put into another bin, given the same bins in layers before.
MAX_MOVED = 0.02
# Largest fraction of elements with another class; above it the precision has destroyed the network.
MAX_CLASS_FLIPS = 0.5

Array = npt.NDArray[np.float32]
Orders = list[npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Differences:
    """Differences by output, all events and elements.

    Attributes:
        largest: largest |a - b| / max(1, |b|): absolute below 1, relative above, because energies have no
            upper bound and float32 has seven digits.
        percentile_99: 99th percentile of the same over real elements.
        largest_absolute: largest |a - b|.
    """

    largest: dict[str, float]
    percentile_99: dict[str, float]
    largest_absolute: dict[str, float]


@dataclass(frozen=True)
class ParityReport:
    """An ONNX graph against Keras in float32.

    Attributes:
        same_bins: differences if Keras uses the order of the graph.
        own_bins: differences if each sorts by itself, as for a user.
        stable: largest of ``same_bins`` by output without unstable elements.
        num_events: events compared.
        num_unstable_events: events with an unstable element, or with an element in another bin if each sorts
            by itself.
        num_elements: real elements compared.
        num_unstable_elements: elements that differ by more than the tolerance, but not by more than the
            effect of the last digits of the input; 0 for a comparison without tolerance.
        num_class_flips: elements with another class (largest of ``cls``), each sorting by itself.
        moved_share: fraction of elements, over graph layers, in another bin, given the same bins in layers
            before.
        has_tolerance: whether unstable elements were counted, as for float32.
        finite: no NaN or Inf, and no element whose outputs are all zero, because the heads turn NaN into
            zero.
    """

    same_bins: Differences
    own_bins: Differences
    stable: dict[str, float]
    num_events: int
    num_unstable_events: int
    num_elements: int
    num_unstable_elements: int
    num_class_flips: int
    moved_share: float
    has_tolerance: bool
    finite: bool

    @property
    def outputs(self) -> dict[str, dict[str, float]]:
        """The main differences: those of the tolerance if there is one, else those of a user."""
        shown = self.same_bins if self.has_tolerance else self.own_bins
        largest = self.stable if self.has_tolerance else shown.largest
        return {
            name: {
                "largest": value,
                "percentile_99": shown.percentile_99[name],
                "largest_absolute": shown.largest_absolute[name],
            }
            for name, value in largest.items()
        }

    @property
    def class_flip_share(self) -> float:
        """Fraction of real elements with another class."""
        return self.num_class_flips / max(1, self.num_elements)

    @property
    def unstable_share(self) -> float:
        """Fraction of real elements that are left out as unstable."""
        return self.num_unstable_elements / max(1, self.num_elements)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {"outputs": self.outputs, **asdict(self), "class_flip_share": self.class_flip_share}


@dataclass(frozen=True)
class Reference:
    """Result of Keras for a batch.

    Attributes:
        x: [B, N, F] raw elements.
        particles: [B, N, C + 8].
        orders: [B, N] of each graph layer; empty without bins.
    """

    x: Array
    particles: Array
    orders: Orders

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        """[B, N], False = padding."""
        return keras.ops.convert_to_numpy(element_mask(self.x))


def reference(model: keras.Model, x: Array) -> Reference:
    """Run Keras on raw elements [B, N, F]."""
    with recorded_orders(model) as orders:
        particles = _predict(model, x)
        return Reference(x, particles, _arrays(orders))


def check_parity(
    model: keras.Model,
    proto: onnx.ModelProto,
    references: Sequence[Reference],
    tolerance: float | None = None,
) -> ParityReport:
    """Compare a graph, which still has its orders as outputs, with Keras.

    Args:
        model: the original in float32.
        proto: graph of ``convert``.
        references: results of ``reference`` for the model.
        tolerance: largest difference of a stable element; None = all elements count.
    """
    names = order_names(proto)
    session = open_session(proto.SerializeToString())
    input_name = session.get_inputs()[0].name
    batches = []
    for given in references:
        particles, *orders = session.run([OUTPUT_NAME, *names], {input_name: given.x})
        batches.append(_check_batch(model, given, particles, orders, tolerance))
    widths = output_widths(model.num_output_classes)
    real = [given.real for given in references]
    free = [given.particles for given in references]
    found = [batch.found for batch in batches]
    same = [batch.expected for batch in batches]
    stable = [np.where(b.unstable[..., None], b.expected, b.found) for b in batches]
    num_elements = int(sum(r.sum() for r in real))
    events = [(b.unstable | b.elsewhere).any(axis=1) for b in batches]
    return ParityReport(
        same_bins=compare(found, same, real, widths),
        own_bins=compare(found, free, real, widths),
        stable=compare(stable, same, real, widths).largest,
        num_events=sum(map(len, found)),
        num_unstable_events=int(sum(e.sum() for e in events)),
        num_elements=num_elements,
        num_unstable_elements=int(sum(b.unstable.sum() for b in batches)),
        num_class_flips=count_class_flips(found, free, real, widths["cls"]),
        moved_share=sum(b.num_moved for b in batches) / max(1, num_elements * len(names)),
        has_tolerance=tolerance is not None,
        finite=all(_is_finite(f, r) for f, r in zip(found, real, strict=True)),
    )


@dataclass(frozen=True)
class _Batch:
    """One batch compared: outputs of the graph, of Keras with its bins, and masks [B, N] of elements."""

    found: Array
    expected: Array
    unstable: npt.NDArray[np.bool_]
    elsewhere: npt.NDArray[np.bool_]
    num_moved: int


def _check_batch(
    model: keras.Model, given: Reference, found: Array, orders: Orders, tolerance: float | None
) -> _Batch:
    expected, num_moved, elsewhere = given.particles, 0, np.zeros_like(given.real)
    if orders:
        with given_orders(model, orders) as own:
            expected = _predict(model, given.x)
        num_moved = int(_in_another_bin(_arrays(own), orders, given.real, model.bin_size).sum())
        elsewhere = _in_another_bin(given.orders, orders, given.real, model.bin_size).any(axis=0)
    unstable = np.zeros_like(given.real)
    if tolerance is not None:
        difference = _scaled(found, expected)
        for i in np.flatnonzero(difference.max(axis=(1, 2)) > tolerance):
            event = [order[i : i + 1] for order in orders]
            noise = NOISE_FACTOR * _noise(model, given.x[i : i + 1], expected[i : i + 1], event)
            above = difference[i] > tolerance
            unstable[i] = above.any(axis=-1) & ((difference[i] <= noise) | ~above).all(axis=-1)
    return _Batch(found, expected, unstable, elsewhere, num_moved)


def _noise(model: keras.Model, event: Array, expected: Array, orders: Orders) -> npt.NDArray[np.float64]:
    """Return the change of the outputs of one event [1, N, F] with the last digits of X, [N, C + 8]."""
    rng = np.random.default_rng(0)
    factor = 1.0 + PERTURBATION * rng.uniform(-1.0, 1.0, (NUM_PERTURBATIONS, *event.shape[1:]))
    factor[..., 0] = 1.0  # the element type stays
    with given_orders(model, [np.repeat(order, NUM_PERTURBATIONS, axis=0) for order in orders]):
        moved = _predict(model, (event * factor).astype(np.float32))
    return _scaled(moved, expected).max(axis=0)


def compare(
    found: Sequence[Array],
    expected: Sequence[Array],
    real: Sequence[npt.NDArray[np.bool_]],
    widths: Mapping[str, int],
) -> Differences:
    """Compare batches of outputs.

    Args:
        found: [B, N, C + 8] each.
        expected: the same.
        real: [B, N] each, False = padding.
        widths: columns of each output, in order.
    """
    absolute = [np.abs(f - e).astype(np.float64) for f, e in zip(found, expected, strict=True)]
    scaled = [_scaled(f, e) for f, e in zip(found, expected, strict=True)]
    flat_absolute = np.concatenate([a.reshape(-1, a.shape[-1]) for a in absolute])
    flat = np.concatenate([s.reshape(-1, s.shape[-1]) for s in scaled])
    rows = np.concatenate([s[r] for s, r in zip(scaled, real, strict=True)])
    edges = np.cumsum(list(widths.values()))[:-1]

    def by_output(table: npt.NDArray[np.float64], summary: Any) -> dict[str, float]:
        parts = np.split(table, edges, axis=-1)
        return {name: float(summary(part)) for name, part in zip(widths, parts, strict=True)}

    return Differences(
        by_output(flat, np.max),
        by_output(rows, lambda part: np.percentile(part, 99)),
        by_output(flat_absolute, np.max),
    )


def count_class_flips(
    found: Sequence[Array],
    expected: Sequence[Array],
    real: Sequence[npt.NDArray[np.bool_]],
    num_classes: int,
) -> int:
    """Count real elements with another class of the largest logit."""
    total = 0
    for f, e, r in zip(found, expected, real, strict=True):
        differs = f[..., :num_classes].argmax(axis=-1) != e[..., :num_classes].argmax(axis=-1)
        total += int((differs & r).sum())
    return total


def judge(report: ParityReport, precision: str, name: str) -> None:
    """Refuse a graph that differs too much from the network.

    Args:
        report: the comparison.
        precision: ``float32`` must agree to ``TOLERANCE``, others must keep most classes.
        name: file, for the message.

    Raises:
        ExportError: the graph is refused; says why.
    """
    if not report.finite:
        raise ExportError(
            f"{name}: {precision} overflows: NaN, or elements whose outputs are all zero; no file was "
            "written, train with parameters.use_normalizer: true or leave this precision out"
        )
    if precision == "float32":
        _judge_exact(report, name)
    elif report.class_flip_share > MAX_CLASS_FLIPS:
        raise ExportError(
            f"{name}: {report.class_flip_share:.0%} of the elements change their class in {precision}, "
            f"allowed {MAX_CLASS_FLIPS:.0%}; no file was written, leave this precision out"
        )


def _judge_exact(report: ParityReport, name: str) -> None:
    for key, value in sorted(report.stable.items(), key=lambda item: -item[1]):
        if not value <= TOLERANCE:  # so that NaN fails
            raise ExportError(
                f"{name}: ONNX differs from Keras by {value:.2e} in {key}, allowed {TOLERANCE:.0e}; "
                "no file was written, try another opset"
            )
    share = report.unstable_share
    if share > MAX_UNSTABLE:
        raise ExportError(
            f"{name}: {share:.0%} of the elements change with the last digits of the input in Keras itself, "
            "so ONNX cannot be compared with it; no file was written, check the model's weights"
        )
    if report.moved_share > MAX_MOVED:
        raise ExportError(
            f"{name}: ONNX sorts {report.moved_share:.1%} of the elements into other bins than Keras, "
            f"allowed {MAX_MOVED:.0%}; no file was written, try another opset"
        )


def _scaled(found: Array, expected: Array) -> npt.NDArray[np.float64]:
    return np.abs(found - expected).astype(np.float64) / np.maximum(1.0, np.abs(expected))


def _predict(model: keras.Model, x: Array) -> Array:
    outputs = eager_forward(model)(x)
    return np.concatenate([outputs[name] for name in OUTPUT_NAMES], axis=-1)


def _arrays(orders: Sequence[Any]) -> Orders:
    return [keras.ops.convert_to_numpy(order) for order in orders]


def _in_another_bin(
    first: Sequence[npt.NDArray[np.integer]],
    second: Sequence[npt.NDArray[np.integer]],
    real: npt.NDArray[np.bool_],
    bin_size: int,
) -> npt.NDArray[np.bool_]:
    """Return [layers, B, N], True where a real element is in different bins."""
    places = [np.argsort(np.stack(orders), axis=-1) // bin_size for orders in (first, second)]
    return (places[0] != places[1]) & real


def _is_finite(particles: Array, real: npt.NDArray[np.bool_]) -> bool:
    return bool(np.isfinite(particles).all() and particles[real].any(axis=-1).all())
