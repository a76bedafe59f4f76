"""Metadata of an exported file, in the file and in the card beside it."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import mlpf
from mlpf.export.runtimes import Target
from mlpf.models.interface import OUTPUT_NAMES, output_widths
from mlpf.physics.particles import CLASS_NAMES, CLASSES
from mlpf.physics.schemas import EventSchema


def model_metadata(model: keras.Model, target: Target, opset: int, schema: EventSchema) -> dict[str, Any]:
    """Return the metadata of all precisions: columns, classes, output order, bins, normalisation."""
    widths = output_widths(model.num_output_classes)
    normalization = model.input_normalization
    constants = None
    if normalization is not None:
        constants = {name: values.tolist() for name, values in normalization.get_statistics().items()}
    return {
        "mlpf_version": mlpf.__version__,
        "model": model.name,
        "target": target.name,
        "opset": opset,
        "input": f"{target.input_name} [B, N, F] float32, raw columns, zero rows are padding",
        "schema": schema.name,
        "element_types": {kind.name: kind.elemtype for kind in schema.kinds},
        **{f"{kind.name}_columns": list(kind.features.names) for kind in schema.kinds},
        **{f"{kind.name}_units": list(kind.features.units) for kind in schema.kinds},
        "class_names": list(CLASS_NAMES),
        "class_pdg": [particle.pdg for particle in CLASSES],
        "outputs": list(OUTPUT_NAMES),
        "output_widths": [widths[name] for name in OUTPUT_NAMES],
        "bin_size": model.bin_size,
        "normalization": constants,
        "num_parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
    }


def model_card(entries: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of ``model_card.json``.

    Args:
        entries: common metadata of all files.
        files: precision -> name, size, opset and parity of the file.
    """
    return {**entries, "files": {precision: dict(facts) for precision, facts in files.items()}}
