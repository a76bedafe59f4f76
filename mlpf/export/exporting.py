"""Write all files of an export and the model card, or none."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

import mlpf
from mlpf.export.conversion import convert
from mlpf.export.graph_rewrites import keep_outputs
from mlpf.export.parity import TOLERANCE, ParityReport, Reference, check_parity, judge, reference
from mlpf.export.precision import (
    float16_magnitudes,
    largest_int8_weight,
    quantize,
    refuse_overflow,
    refuse_saturation,
    with_policy,
)
from mlpf.export.runtimes import OUTPUT_NAME, RUNTIMES, ExportError, Runtime
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import ExportFiles
from mlpf.models.interface import OUTPUT_NAMES, output_widths
from mlpf.physics.particles import CLASS_NAMES, CLASSES
from mlpf.physics.random_events import FieldAndFace, sample_events
from mlpf.physics.schemas import SCHEMAS, EventSchema


def model_metadata(model: keras.Model, runtime: Runtime, opset: int, schema: EventSchema) -> dict[str, Any]:
    """Return what all precisions share: columns, classes, output order, bins, normalisation."""
    widths = output_widths(model.num_output_classes)
    normalization = model.input_normalization
    constants = None
    if normalization is not None:
        constants = {name: values.tolist() for name, values in normalization.get_statistics().items()}
    return {
        "mlpf_version": mlpf.__version__,
        "model": model.name,
        "target": runtime.name,
        "opset": opset,
        "input": f"{runtime.input_name} [B, N, F] float32, raw columns, zero rows are padding",
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
        entries: what all files share.
        files: precision -> name, size, opset and parity of the file.
    """
    return {**entries, "files": {precision: dict(facts) for precision, facts in files.items()}}


logger = logging.getLogger(__name__)

# Shapes of the check: with whole and incomplete bins, one or several events, fewer elements than a bin.
PARITY_SHAPES = ((1, 256), (2, 300), (3, 64), (4, 1000), (1, 2560))


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export.

    Attributes:
        path: the file.
        precision: see ``mlpf.export.precision``.
        opset: its ONNX operator set.
        num_bytes: its size.
        largest_int8_weight: largest absolute int8 weight; None = no int8.
        largest_float16: largest absolute float16 number on the events of the check; None = no float16.
        parity: comparison with Keras.
    """

    path: Path
    precision: str
    opset: int
    num_bytes: int
    largest_int8_weight: int | None
    largest_float16: float | None
    parity: ParityReport

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "file": self.path.name,
            "opset": self.opset,
            "num_bytes": self.num_bytes,
            "largest_int8_weight": self.largest_int8_weight,
            "largest_float16": self.largest_float16,
            "parity": self.parity.as_dict(),
        }


def export_onnx(
    model: keras.Model,
    path: Path,
    *,
    target: str = "onnxruntime",
    precisions: Sequence[str] = ("float32",),
    opset: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    schema: EventSchema = SCHEMAS["clic"],
    detector: FieldAndFace | None,
) -> dict[str, ExportedFile]:
    """Write ``path`` (float32), ``<stem>_<precision>`` for other precisions, and ``model_card.json``.

    Args:
        model: a model of X [B, N, F]; its outputs are concatenated in the order of ``OUTPUT_NAMES``.
        path: file of float32; files are replaced if they exist.
        target: out of ``RUNTIMES``.
        precisions: out of ``PRECISIONS``.
        opset: ONNX operator set; default that of the runtime.
        metadata: further entries of the ONNX metadata and of the model card.
        schema: what the events are made of.
        detector: for the events of the check; None where they have no positions.

    Returns:
        The files by precision.

    Raises:
        ExportError: the runtime does not take the opset, a path is a directory, float32 differs from Keras by
            more than ``TOLERANCE``, another precision makes no sense, numbers do not fit into float16, or
            int8 would saturate on some processors; nothing is written.
    """
    names = ExportFiles(Path(path))
    runtime, paths = RUNTIMES[target], _paths(names, precisions)
    opset = runtime.choose_opset(opset)
    model = with_policy(model, "float32")
    entries = {**model_metadata(model, runtime, opset, schema), **(metadata or {})}
    references = _references(model, schema, detector)
    files = {}
    names.float32.parent.mkdir(parents=True, exist_ok=True)
    # The card is renamed last: it never describes a missing file.
    with ExitStack() as stack:
        card = stack.enter_context(atomic_write(names.card))
        for precision, proto in _graphs(model, runtime, opset, tuple(paths)):
            file = paths[precision]
            largest_float16, report = _check(model, proto, precision, references, str(file))
            part = stack.enter_context(atomic_write(file))
            _save(proto, part, {**entries, "precision": precision})
            files[precision] = ExportedFile(
                path=file,
                precision=precision,
                opset=opset,
                num_bytes=part.stat().st_size,
                largest_int8_weight=largest_int8_weight(proto),
                largest_float16=largest_float16,
                parity=report,
            )
            logger.info("%s: largest difference %.1e", file, max(report.same_bins.largest.values()))
        content = model_card(entries, {precision: written.as_dict() for precision, written in files.items()})
        card.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return files


def _references(model: keras.Model, schema: EventSchema, detector: FieldAndFace | None) -> list[Reference]:
    """Return random events of the shapes of the check, with what Keras makes of them."""
    shapes = [(b, min(n, model.max_num_elements or n)) for b, n in PARITY_SHAPES]
    events = [sample_events(schema, b, n, detector, seed=i) for i, (b, n) in enumerate(shapes)]
    return [reference(model, x) for x in events]


def _check(
    model: keras.Model,
    proto: onnx.ModelProto,
    precision: str,
    references: Sequence[Reference],
    name: str,
) -> tuple[float | None, ParityReport]:
    """Return the largest float16 number and the comparison with Keras; refuse bad graphs."""
    refuse_saturation(proto, name)
    magnitudes = float16_magnitudes(proto, [given.x for given in references])
    refuse_overflow(magnitudes, name)
    report = check_parity(model, proto, references, TOLERANCE if precision == "float32" else None)
    judge(report, precision, name)
    return max(magnitudes.values(), default=None), report


def _paths(names: ExportFiles, precisions: Sequence[str]) -> dict[str, Path]:
    """Return the file of each precision; refuse names of the card and of directories."""
    paths = {precision: names.onnx(precision) for precision in precisions}
    if names.card in paths.values():
        raise ExportError(f"{names.float32}: is the name of the model card beside it; give another one")
    for file in paths.values():
        if file.is_dir():
            raise ExportError(f"{file}: is a directory; give the name of the file to write")
    if names.card.is_dir():
        raise ExportError(
            f"{names.card}: is a directory, expected the model card; remove it or export elsewhere"
        )
    return paths


def _graphs(
    model: keras.Model, runtime: Runtime, opset: int, precisions: Sequence[str]
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the graph of each precision, one at a time."""
    full = None
    if {"float32", "int8"} & set(precisions):
        full = convert(model, runtime, opset)
    for precision in precisions:
        if precision == "float16":
            yield precision, convert(with_policy(model, "mixed_float16"), runtime, opset)
        elif full is not None:
            yield precision, full if precision == "float32" else quantize(full)


def _save(proto: onnx.ModelProto, path: Path, entries: Mapping[str, Any]) -> None:
    """Write a graph without the outputs of the check."""
    final = keep_outputs(proto, {OUTPUT_NAME})
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
    onnx.helper.set_model_props(final, texts)
    onnx.checker.check_model(final)
    path.write_bytes(final.SerializeToString())
