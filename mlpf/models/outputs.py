"""Outputs of every model: names, order and width."""

from collections.abc import Mapping
from typing import Any

from keras import ops

# Order in which the outputs are concatenated for ONNX.
OUTPUT_NAMES = ("cls", "charge", "pt", "eta", "sin_phi", "cos_phi", "energy")
NUM_CHARGES = 3


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
