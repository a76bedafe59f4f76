"""Commands that use a trained model."""

from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import PATH, data_dir_option, run_dir_option, weights_option


@click.command()
@run_dir_option
@weights_option
@click.option(
    "--nevents", "num_events", type=click.IntRange(1), help="Events per dataset; default the config's."
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Evaluate only on this dataset, e.g. one of your own; repeatable. Numbers of others stay.",
)
@data_dir_option
def evaluate(run_dir: Path, **options: Any) -> None:
    """Compare a trained model with the rule-based baseline and the limits set by truth."""
    from mlpf.workflows import evaluate as workflow

    workflow.run(run_dir, **options)


@click.command()
@run_dir_option
def plots(run_dir: Path) -> None:
    """Draw the figures of an evaluated training and write its report."""
    from mlpf.workflows import plots as workflow

    workflow.run(run_dir)


@click.command()
@run_dir_option
@weights_option
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="ONNX file of float32; others are written beside it. Default RUN_DIR/model.onnx.",
)
@click.option(
    "--target",
    type=click.Choice(("onnxruntime", "cmssw")),
    default="onnxruntime",
    show_default=True,
    help="Program that reads the file; decides the operator set and the name of the input.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(("float32", "float16", "int8")),
    default=("float32",),
    show_default=True,
    help="Number format inside the network; repeatable, one file each.",
)
@click.option("--opset", type=click.IntRange(1), help="ONNX operator set; default that of the target.")
def export(run_dir: Path, **options: Any) -> None:
    """Export a trained model to ONNX and check it against Keras."""
    from mlpf.workflows import export as workflow

    workflow.run(run_dir, **options)


@click.command()
@run_dir_option
@weights_option
@click.option(
    "-e",
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(("eager", "graph", "xla", "onnx", "onnx-float16", "onnx-int8")),
    default=("eager", "graph", "xla", "onnx"),
    help="Engine that runs the model; repeatable.",
)
@click.option(
    "-b", "--batch-size", "batch_sizes", multiple=True, type=click.IntRange(1), default=(1, 4), help="B."
)
@click.option(
    "-n",
    "--num-elements",
    multiple=True,
    type=click.IntRange(1),
    default=(128, 256, 512, 1024, 2560),
    help="N of random events; repeatable.",
)
@click.option("--dataset", help="Test events of this dataset of the configuration instead of random ones.")
@click.option("--num-runs", type=click.IntRange(2), default=20, help="Timed passes per shape and engine.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@click.option("-o", "--output", type=PATH, help="Directory for infer.json and infer.png; default RUN_DIR.")
@data_dir_option
def infer(run_dir: Path, **options: Any) -> None:
    """Measure latency and throughput of a trained model."""
    from mlpf.workflows import infer as workflow

    workflow.run(run_dir, **options)
