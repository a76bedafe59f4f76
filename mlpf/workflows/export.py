"""Export a trained model to ONNX and compare it with Keras."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlpf.export import ExportedFile, export_onnx
from mlpf.files.run_directory import RunDirectory
from mlpf.machine import session
from mlpf.runs.trained import export_metadata, load_run_config, load_trained_model


def run(
    run_dir: Path,
    *,
    output: Path | None = None,
    weights: str | Path | None = None,
    target: str = "onnxruntime",
    precisions: Sequence[str] = ("float32",),
    opset: int | None = None,
) -> dict[str, Any]:
    """Write ONNX files in the given precisions and ``model_card.json``, compared with Keras.

    Args:
        run_dir: run directory of a training.
        output: ONNX file of float32; default ``run_dir/model.onnx``. Other files are written beside it.
        weights: ``best`` (default), ``latest``, or the path of a checkpoint.
        target: out of ``mlpf.export.RUNTIMES``.
        precisions: out of ``mlpf.export.PRECISIONS``.
        opset: ONNX operator set; default that of the runtime.

    Returns:
        The section ``files`` of the card.

    Raises:
        ExportError: a file differs too much from Keras, or the runtime does not support the operator set.
            Nothing is written.
        CheckpointError: no run directory, or its checkpoint is missing or of another model.
    """
    run_dir = Path(run_dir)
    config = load_run_config(run_dir)
    # Compare with a float32 model, whatever the number format of the training.
    session.prepare("float32", allow_tf32=False)
    model, checkpoint = load_trained_model(run_dir, config, None if weights is None else str(weights))
    files = export_onnx(
        model,
        Path(output) if output is not None else RunDirectory(run_dir).export.float32,
        target=target,
        precisions=precisions,
        opset=opset,
        schema=config.dataset.event_schema,
        detector=config.dataset.detector,
        metadata=export_metadata(config, checkpoint),
    )
    console = Console()
    for table in _tables(files):
        console.print(table)
    return {precision: file.as_dict() for precision, file in files.items()}


def _tables(files: Mapping[str, ExportedFile]) -> list[Table]:
    """Return a table of differences per output and a table with other facts per file."""
    differences = Table("file", "output", "largest", "99 %", "absolute", title="ONNX against Keras")
    reports = [file.parity for file in files.values()]
    for precision, report in zip(files, reports, strict=True):
        for name, values in report.outputs.items():
            differences.add_row(precision, name, *(f"{value:.1e}" for value in values.values()))
        differences.add_section()
    differences.caption = (
        "largest and 99 %: |a - b| / max(1, |b|); absolute: largest |a - b|. float32 in the bins of ONNX, "
        "its largest without unstable elements; others as they are, each in its own bins"
    )
    facts = Table("file", "opset", "MB", "class flips", "unstable events", "unstable elements")
    for file, report in zip(files.values(), reports, strict=True):
        facts.add_row(
            file.path.name,
            str(file.opset),
            f"{file.num_bytes / 1e6:.1f}",
            f"{report.num_class_flips} of {report.num_elements} ({report.class_flip_share:.2%})",
            f"{report.num_unstable_events} of {report.num_events}",
            str(report.num_unstable_elements),
        )
    return [differences, facts]
