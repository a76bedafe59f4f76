"""What every network takes and returns: the cleaning of its input; names, order and width of its outputs."""

from collections.abc import Mapping
from typing import Any

from keras import ops

# Order in which the outputs are concatenated for ONNX.
OUTPUT_NAMES = ("cls", "charge", "pt", "eta", "sin_phi", "cos_phi", "energy")
NUM_CHARGES = 3
# Below the largest float32, so that infinities of either sign are caught by one comparison.
LARGEST_INPUT = 3.0e38


def finite_or_zero(x):
    """Replace NaN and infinities by 0; any shape."""
    return ops.where(ops.abs(x) < LARGEST_INPUT, x, ops.zeros_like(x))


def output_widths(num_output_classes: int) -> dict[str, int]:
    """Return the number of columns of each output, in the order of ``OUTPUT_NAMES``."""
    widths = {"cls": num_output_classes, "charge": NUM_CHARGES}
    return {name: widths.get(name, 1) for name in OUTPUT_NAMES}


def concatenate_outputs(outputs: Mapping[str, Any]) -> Any:
    """Concatenate outputs [B, N, .] to one [B, N, C + 8] tensor in the order of ``OUTPUT_NAMES``."""
    return ops.concatenate([outputs[name] for name in OUTPUT_NAMES], axis=-1)
