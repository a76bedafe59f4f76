"""Write the files of an export, or none."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import onnx

from mlpf.export.conversion import convert
from mlpf.export.float16_range import float16_magnitudes, refuse_overflow
from mlpf.export.graph_rewrites import keep_outputs
from mlpf.export.model_card import model_card, model_metadata
from mlpf.export.parity import TOLERANCE, ParityReport, Reference, check_parity, judge, reference
from mlpf.export.precision import largest_int8_weight, quantize, refuse_saturation, with_policy
from mlpf.export.runtimes import OUTPUT_NAME, TARGETS, ExportError, Target
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import ExportFiles
from mlpf.physics.random_events import FieldAndFace, sample_events
from mlpf.physics.schemas import SCHEMAS, EventSchema

logger = logging.getLogger(__name__)

# Shapes of the check: whole bins and not, one event and several, fewer elements than a bin.
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
        parity: how far it is from Keras.
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
    """Write ``path``, ``<stem>_<precision>`` beside it for others than float32, and ``model_card.json``.

    Args:
        model: a model of X [B, N, F]; its outputs are concatenated in the order of ``OUTPUT_NAMES``.
        path: file of float32; files are replaced if they exist.
        target: out of ``TARGETS``.
        precisions: out of ``PRECISIONS``.
        opset: ONNX operator set; default that of the target.
        metadata: further entries of the ONNX metadata and of the model card.
        schema: what the events are made of.
        detector: for the events of the check; None where they have no positions.

    Returns:
        The files by precision.

    Raises:
        ExportError: the target does not take the opset, a path is a directory, float32 differs from Keras by
            more than ``TOLERANCE``, another precision makes no sense, numbers do not fit into float16, or
            int8 would saturate on some processors; nothing is written.
    """
    names, goal = ExportFiles(Path(path)), TARGETS[target]
    opset = goal.choose_opset(opset)
    paths = _paths(names, precisions)
    model = with_policy(model, "float32")
    entries = {**model_metadata(model, goal, opset, schema), **(metadata or {})}
    references = _references(model, schema, detector)
    files = {}
    names.float32.parent.mkdir(parents=True, exist_ok=True)
    # The card gets its name last: it never describes a file that is not there.
    with ExitStack() as stack:
        card = stack.enter_context(atomic_write(names.card))
        for precision, proto in _graphs(model, goal, opset, tuple(paths)):
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
    """Return the largest float16 number and the comparison with Keras; refuse what must not be written."""
    refuse_saturation(proto, name)
    magnitudes = float16_magnitudes(proto, [given.x for given in references])
    refuse_overflow(magnitudes, name)
    report = check_parity(model, proto, references, TOLERANCE if precision == "float32" else None)
    judge(report, precision, name)
    return max(magnitudes.values(), default=None), report


def _paths(names: ExportFiles, precisions: Sequence[str]) -> dict[str, Path]:
    """Return the file of each precision, none of them in the way of the card or of a directory."""
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
    model: keras.Model, target: Target, opset: int, precisions: Sequence[str]
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the graph of each precision, one at a time."""
    full = None
    if {"float32", "int8"} & set(precisions):
        full = convert(model, target, opset)
    for precision in precisions:
        if precision == "float16":
            yield precision, convert(with_policy(model, "mixed_float16"), target, opset)
        elif full is not None:
            yield precision, full if precision == "float32" else quantize(full)


def _save(proto: onnx.ModelProto, path: Path, entries: Mapping[str, Any]) -> None:
    """Write a graph without the outputs of the check."""
    final = keep_outputs(proto, {OUTPUT_NAME})
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}
    onnx.helper.set_model_props(final, texts)
    onnx.checker.check_model(final)
    path.write_bytes(final.SerializeToString())
