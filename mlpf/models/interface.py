"""What every network takes and returns: the cleaning of its input; names, order and width of its outputs."""

from collections.abc import Mapping
from typing import Any

from keras import ops

# Order in which the outputs are concatenated for ONNX.
OUTPUT_NAMES = ("cls", "charge", "pt", "eta", "sin_phi", "cos_phi", "energy")
NUM_CHARGES = 3
# Below the largest float32, so that infinities of either sign are caught by one comparison.
LARGEST_INPUT = 3.0e38
ELEMTYPE = 0  # column of the element type; the same for every kind of element, 0 = padding


def finite_or_zero(x):
    """Replace NaN and infinities by 0; any shape."""
    return ops.where(ops.abs(x) < LARGEST_INPUT, x, ops.zeros_like(x))


def element_mask(X: Any) -> Any:
    """Return [B, N] bool, True = real element, False = padding.

    Args:
        X: [B, N, F] without NaN, as batches are and as ``finite_or_zero`` makes it; numpy or any backend.
    """
    return ops.not_equal(X[..., ELEMTYPE], 0.0)


def output_widths(num_output_classes: int) -> dict[str, int]:
    """Return the number of columns of each output, in the order of ``OUTPUT_NAMES``."""
    widths = {"cls": num_output_classes, "charge": NUM_CHARGES}
    return {name: widths.get(name, 1) for name in OUTPUT_NAMES}


def output_slices(width: int) -> dict[str, slice]:
    """Return the columns of each output among ``width`` = C + 8 concatenated ones."""
    edge, places = 0, {}
    for name, columns in output_widths(width - sum(output_widths(0).values())).items():
        places[name] = slice(edge, edge := edge + columns)
    return places


def concatenate_outputs(outputs: Mapping[str, Any]) -> Any:
    """Concatenate outputs [B, N, .] to one [B, N, C + 8] tensor in the order of ``OUTPUT_NAMES``."""
    return ops.concatenate([outputs[name] for name in OUTPUT_NAMES], axis=-1)
