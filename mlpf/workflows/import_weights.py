"""Write a run directory with the weights of the published network, for evaluate, plots and export."""

import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.errors import OutputExists
from mlpf.files.run_directory import CheckpointFolder, RunDirectory
from mlpf.models.published_weights import load_published_weights
from mlpf.runs.trained import build_network

CHECKPOINT = "imported"


def run(config: Config, weights: Path, run_dir: Path) -> Path:
    """Build the model of a configuration, load published weights into it and write a run directory.

    Args:
        config: the whole configuration; its layers and widths must fit the weights.
        weights: HDF5 file of the reference MLPF.
        run_dir: run directory to create.

    Returns:
        Path of the checkpoint.

    Raises:
        CheckpointError: the file cannot be read, or weights do not fit. The message names them.
        OutputExists: ``run_dir`` exists and is not empty.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise OutputExists(f"{run_dir}: exists already; choose another --outdir or remove it")
    model = build_network(config)
    number = load_published_weights(weights, model)
    part = run_dir.with_name(f".{run_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    files = RunDirectory(part)
    folder = files.checkpoints / CHECKPOINT
    try:
        folder.mkdir(parents=True)
        write_resolved(config, files.config)
        model.save_weights(CheckpointFolder(folder).weights)
        pointer = json.dumps({"folder": CHECKPOINT, "source": weights.name})
        for name in ("best", "latest"):
            files.pointer(name).write_text(pointer, encoding="utf-8")
        if run_dir.is_dir():
            run_dir.rmdir()
        part.replace(run_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    table = Table("import-weights", "")
    table.add_row("weights", f"{number} values of {len(model.weights)} arrays from {weights}")
    table.add_row("run directory", str(run_dir))
    table.add_row("next", f"mlpf evaluate -t {run_dir}, or mlpf export -t {run_dir}")
    Console().print(table)
    return RunDirectory(run_dir).checkpoints / CHECKPOINT
