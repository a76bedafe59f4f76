"""Export a trained model to ONNX and show how far it is from Keras."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlpf import runtime
from mlpf.workflows.trained import load_run_config, load_trained_model


def run(
    run_dir: Path,
    *,
    output: Path | None = None,
    weights: str | Path | None = None,
    opset: int | None = None,
) -> dict[str, Any]:
    """Write ``model.onnx`` and ``model_card.json``, checked against Keras.

    Args:
        run_dir: run directory of a training.
        output: ONNX file; default ``run_dir/model.onnx``. The card is written beside it.
        weights: ``best`` (default), ``latest``, or the path of a checkpoint.
        opset: ONNX operator set; default that of ``mlpf.export``.

    Returns:
        The parity report as plain data.

    Raises:
        ExportError: ONNX differs from Keras by more than allowed; nothing is written.
        CheckpointError: no run directory, or its checkpoint is missing or of another model.
    """
    from mlpf.export import DEFAULT_OPSET, export_onnx

    run_dir = Path(run_dir)
    config = load_run_config(run_dir)
    # ONNX runs in float32 whatever the training did.
    runtime.set_dtype_policy("float32")
    model, checkpoint = load_trained_model(run_dir, config, None if weights is None else str(weights))
    report = export_onnx(
        model,
        Path(output) if output is not None else run_dir / "model.onnx",
        opset=DEFAULT_OPSET if opset is None else opset,
        schema=config.dataset.event_schema,
        metadata={
            "checkpoint": checkpoint.name,
            "jet_algorithm": config.evaluation_jet_algo,
            "none_threshold": config.evaluation_none_threshold,
        },
    )
    table = Table("output", "largest difference", title=f"{report.path}: ONNX against Keras")
    for name, difference in report.per_output.items():
        table.add_row(name, f"{difference:.1e}")
    table.add_row("all", f"{report.max_difference:.1e}", style="bold")
    table.caption = f"{report.num_events} events, {report.num_unstable_events} of them left out as unstable"
    Console().print(table)
    return {**asdict(report), "path": str(report.path)}
