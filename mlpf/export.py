"""Export of a model to ONNX, checked against Keras with onnxruntime before it gets its name."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx

import mlpf
from mlpf.atomic import atomic_write
from mlpf.errors import MLPFError
from mlpf.export_samples import sample_events
from mlpf.models.outputs import OUTPUT_NAMES, concatenate_outputs, output_widths
from mlpf.physics.particles import CLASS_NAMES, PDG_LABELS
from mlpf.physics.schemas import SCHEMAS, EventSchema

logger = logging.getLogger(__name__)

INPUT_NAME = "x"
OUTPUT_NAME = "particles"
DEFAULT_OPSET = 17
TOLERANCE = 1e-3
# Shapes of the check: whole bins and not, one event and several, fewer elements than a bin.
PARITY_SHAPES = ((1, 256), (2, 300), (3, 64), (4, 1000), (1, 37))
# Relative changes of the input that tell whether an event sits on the edge between two bins.
PERTURBATION = 1e-6
NUM_PERTURBATIONS = 8

Array = npt.NDArray[np.float32]


class ExportError(MLPFError):
    """An exported model does not give the results of the original."""


@dataclass(frozen=True)
class ParityReport:
    """How far ONNX is from Keras.

    Differences are absolute below 1 and relative above (``|a - b| / max(1, |b|)``): outputs in GeV have no
    upper bound and float32 has seven digits.

    Attributes:
        max_difference: largest difference of any output.
        per_output: largest difference of each output.
        max_absolute_difference: largest ``|a - b|``.
        num_events: events compared.
        num_unstable_events: events left out: one float32 rounding more or less moves an element into
            another bin there, in Keras itself.
        path: the exported file.
    """

    max_difference: float
    per_output: dict[str, float]
    max_absolute_difference: float
    num_events: int
    num_unstable_events: int
    path: Path


def export_onnx(
    model: keras.Model,
    path: Path,
    *,
    opset: int = DEFAULT_OPSET,
    metadata: Mapping[str, Any] | None = None,
    samples: Sequence[Array] | None = None,
    tolerance: float = TOLERANCE,
    schema: EventSchema = SCHEMAS["clic"],
) -> ParityReport:
    """Write ``path`` and ``model_card.json`` beside it; B and N are dynamic.

    Args:
        model: a model of X [B, N, F]; its outputs are concatenated in the order of ``OUTPUT_NAMES``.
        path: file to write, replaced if it exists.
        opset: ONNX operator set, 15 or later.
        metadata: further entries of the ONNX metadata and of the model card.
        samples: events [B, N, F] to compare on besides random ones.
        tolerance: largest difference allowed.
        schema: what the events are made of.

    Returns:
        The comparison.

    Raises:
        ExportError: ONNX and Keras differ by more than ``tolerance``, or ``path`` is a directory; nothing
            is written.
    """
    path = Path(path)
    if path.is_dir():
        raise ExportError(f"{path}: is a directory; give the name of the file to write")
    num_features = int(model.num_input_features)
    shapes = [(b, min(n, model.max_num_elements or n)) for b, n in PARITY_SHAPES]
    events = [sample_events(schema, b, n, seed=i) for i, (b, n) in enumerate(shapes)]
    entries = {**model_metadata(model, opset, schema), **(metadata or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    # The inner one gets its name first: a card never describes a model that is not there.
    with atomic_write(path.with_name("model_card.json")) as card, atomic_write(path) as part:
        _convert(model, part, num_features, opset, entries)
        report = check_parity(model, part, [*events, *(samples or [])], tolerance, name=path)
        content = {**entries, "onnx_difference": report.per_output}
        card.write_text(json.dumps(content, indent=2) + "\n")
    logger.info("%s: largest difference from Keras %.1e", path, report.max_difference)
    return report


def model_metadata(model: keras.Model, opset: int, schema: EventSchema) -> dict[str, Any]:
    """Return what a user of the file must know: columns, classes, output order, bins, normalisation."""
    widths = output_widths(model.num_output_classes)
    normalization = model.input_normalization
    constants = None
    if normalization is not None:
        constants = {name: values.tolist() for name, values in normalization.get_statistics().items()}
    return {
        "mlpf_version": mlpf.__version__,
        "model": model.name,
        "opset": opset,
        "input": f"{INPUT_NAME} [B, N, F] float32, raw columns, zero rows are padding",
        "schema": schema.name,
        "element_types": {kind.name: kind.elemtype for kind in schema.kinds},
        **{f"{kind.name}_columns": list(kind.features.names) for kind in schema.kinds},
        **{f"{kind.name}_units": list(kind.features.units) for kind in schema.kinds},
        "class_names": list(CLASS_NAMES),
        "class_pdg": PDG_LABELS.tolist(),
        "outputs": list(OUTPUT_NAMES),
        "output_widths": [widths[name] for name in OUTPUT_NAMES],
        "bin_size": model.bin_size,
        "normalization": constants,
        "num_parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
    }


def _convert(
    model: keras.Model, path: Path, num_features: int, opset: int, entries: Mapping[str, Any]
) -> None:
    signature = [tf.TensorSpec((None, None, num_features), tf.float32, name=INPUT_NAME)]

    @tf.function(input_signature=signature)
    def predict(x):
        return {OUTPUT_NAME: concatenate_outputs(model(x, training=False))}

    proto, _ = tf2onnx.convert.from_function(predict, input_signature=signature, opset=opset)
    _name_axes(proto.graph.input[0], ("B", "N", num_features))
    _name_axes(proto.graph.output[0], ("B", "N", sum(output_widths(model.num_output_classes).values())))
    onnx.helper.set_model_props(
        proto, {k: v if isinstance(v, str) else json.dumps(v) for k, v in entries.items()}
    )
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _name_axes(value: onnx.ValueInfoProto, axes: Sequence[str | int]) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in axes:
        dim = shape.dim.add()
        if isinstance(axis, int):
            dim.dim_value = axis
        else:
            dim.dim_param = axis


def check_parity(
    model: keras.Model,
    path: Path,
    events: Sequence[Array],
    tolerance: float = TOLERANCE,
    name: Path | None = None,
) -> ParityReport:
    """Compare an ONNX file with Keras.

    Args:
        model: the original.
        path: the ONNX file.
        events: arrays [B, N, F] of raw elements.
        tolerance: largest difference allowed.
        name: path for the message and the report, if not ``path``.

    Raises:
        ExportError: a difference above ``tolerance``, or more than half of the events unstable.
    """
    name = name or path
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    widths = output_widths(model.num_output_classes)
    largest = np.zeros(sum(widths.values()))
    absolute = 0.0
    unstable = 0
    for batch in events:
        expected = _predict(model, batch)
        found = session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0]
        difference = _difference(found, expected)
        keep = np.ones(len(batch), dtype=bool)
        for i in np.flatnonzero(difference.max(axis=(1, 2)) > tolerance):
            keep[i] = not _is_unstable(model, batch[i : i + 1], expected[i : i + 1], tolerance)
        unstable += int((~keep).sum())
        # np.maximum and np.max hand NaN on, so a NaN fails below.
        largest = np.maximum(largest, difference[keep].max(axis=(0, 1), initial=0.0))
        absolute = max(absolute, float(np.abs(found - expected)[keep].max(initial=0.0)))
    edges = np.cumsum(list(widths.values()))[:-1]
    parts = np.split(largest, edges)
    per_output = {key: float(part.max()) for key, part in zip(widths, parts, strict=True)}
    num_events = sum(len(batch) for batch in events)
    _judge(per_output, tolerance, unstable, num_events, name)
    return ParityReport(float(largest.max()), per_output, absolute, num_events, unstable, name)


def _judge(
    per_output: Mapping[str, float], tolerance: float, unstable: int, num_events: int, name: Path
) -> None:
    for key, value in sorted(per_output.items(), key=lambda item: -item[1]):
        if not value <= tolerance:  # so that NaN fails
            raise ExportError(
                f"{name}: ONNX differs from Keras by {value:.2e} in {key}, allowed {tolerance:.0e}; "
                "no file was written, try another opset"
            )
    if unstable > num_events / 2:
        raise ExportError(
            f"{name}: {unstable} of {num_events} events change bins with the last digit of their input, so "
            "ONNX cannot be compared with Keras; no file was written, check the model's weights"
        )


def _predict(model: keras.Model, batch: Array) -> Array:
    return keras.ops.convert_to_numpy(concatenate_outputs(model(batch, training=False)))


def _difference(found: Array, expected: Array) -> Array:
    return np.abs(found - expected) / np.maximum(1.0, np.abs(expected))


def _is_unstable(model: keras.Model, event: Array, expected: Array, tolerance: float) -> bool:
    """Return True if Keras itself moves by more than ``tolerance`` when X [1, N, F] is rounded otherwise."""
    rng = np.random.default_rng(0)
    factor = 1.0 + PERTURBATION * rng.uniform(-1.0, 1.0, (NUM_PERTURBATIONS, *event.shape[1:]))
    factor[..., 0] = 1.0
    moved = _predict(model, (event * factor).astype(np.float32))
    return bool(_difference(moved, expected).max() > tolerance)
