"""Command line: parse, load the configuration, import one workflow, run it."""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from mlpf import __version__
from mlpf.errors import MLPFError

PATH = click.Path(path_type=Path)

config_option = click.option("-c", "--config", "config_path", type=PATH, required=True, help="YAML file.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a configuration key; repeatable."
)
run_dir_option = click.option(
    "-t", "--train-dir", "run_dir", type=PATH, required=True, help="Run directory of a training."
)
weights_option = click.option(
    "-w", "--weights", default="best", show_default=True, help="Checkpoint: best, latest, or a directory."
)
workers_option = click.option(
    "-j", "--workers", type=click.IntRange(1), default=1, show_default=True, help="Worker processes."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
data_dir_option = click.option("--data-dir", type=PATH, help="Where datasets are, for all of them.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def cli() -> None:
    """Machine-learned particle flow: from detector events to particles.

    A first run: simulate -> postprocess -> build -> train -> evaluate -> plots -> export.
    """


@cli.command()
@click.argument("sample")
@click.option("-n", "--num-events", type=click.IntRange(1), required=True, help="Events to simulate.")
@click.option("-o", "--output", type=PATH, required=True, help="Directory for the ROOT files.")
@click.option("--events-per-file", type=click.IntRange(1), default=100, help="Events per file.")
@click.option("--first-event", type=click.IntRange(0), default=0, help="Number of the first event.")
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed; the same seed gives the same events.")
@workers_option
@overwrite_option
def simulate(sample: str, num_events: int, output: Path, **options: Any) -> None:
    """Generate SAMPLE with Pythia8 and a CLIC-like detector into EDM4HEP ROOT files.

    Samples: ttbar, qq, zh_tautau, ww_fullhad, ttbar_pu10, and guns single_{neutron, kaon0l, pi, pi0,
    mu, electron, gamma}.
    """
    from mlpf.workflows import simulate as workflow

    workflow.run(sample, num_events, output, **options)


@cli.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, required=True, help="Directory for the parquet files.")
@workers_option
@overwrite_option
def postprocess(inputs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Turn EDM4HEP ROOT files (INPUTS: files, directories or globs) into parquet features and targets."""
    from mlpf.workflows import postprocess as workflow

    workflow.run(inputs, output, **options)


class Fractions(click.ParamType):
    """Three comma-separated fractions that sum to one."""

    name = "TRAIN,VALID,TEST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse ``0.8,0.1,0.1``."""
        if isinstance(value, tuple):
            return value
        try:
            parts = tuple(float(p) for p in value.split(","))
        except ValueError:
            parts = ()
        if len(parts) != 3 or min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
            self.fail(f"{value!r}: expected three fractions that sum to 1, e.g. 0.8,0.1,0.1", param, ctx)
        return parts


@cli.command()
@click.argument("dataset")
@click.option("--data-dir", type=PATH, default=Path("tensorflow_datasets"), help="Where datasets are.")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    required=True,
    help="Parquet files, directories, globs; repeatable.",
)
@click.option("--split-seed", type=int, default=0, help="Seed of the split by file name.")
@click.option("--split-fractions", type=Fractions(), default=(0.8, 0.1, 0.1), help="Share of each split.")
@overwrite_option
def build(dataset: str, data_dir: Path, inputs: tuple[str, ...], **options: Any) -> None:
    """Build DATASET, e.g. clic_edm4hep/ttbar, from parquet files into array_record splits."""
    from mlpf.workflows import build as workflow

    workflow.run(dataset, data_dir, inputs, **options)


@cli.command()
@click.option("-c", "--config", "config_path", type=PATH, help="YAML file (not with --resume).")
@click.option(
    "-o", "--outdir", "run_dir", type=PATH, help="Run directory; default experiments/<name>_<time>."
)
@click.option("-p", "--prefix", default="", help="Prefix of the default run directory name.")
@click.option("--resume", type=PATH, help="Continue the training in this run directory.")
@click.option("-w", "--weights", type=PATH, help="Start from the weights of this run directory or file.")
@click.option("--nepochs", type=click.IntRange(1), help="Epochs; shortcut for setup.num_epochs.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed; shortcut for setup.seed.")
@click.option("--ntrain", type=click.IntRange(1), help="Most training events per dataset.")
@click.option("--ntest", type=click.IntRange(1), help="Most validation events.")
@click.option("--num-cpus", type=click.IntRange(1), help="Threads; default all cores.")
@data_dir_option
@set_option
def train(
    config_path: Path | None,
    run_dir: Path | None,
    prefix: str,
    resume: Path | None,
    nepochs: int | None,
    seed: int | None,
    data_dir: Path | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Train a model."""
    from mlpf.config.loading import load_config

    if (config_path is None) == (resume is None):
        raise click.UsageError("give either -c CONFIG for a new training or --resume RUN_DIR")
    if resume is not None:
        if run_dir is not None or options["weights"] is not None:
            raise click.UsageError("--resume continues in its own directory: leave out -o and -w")
        config_path, run_dir = resume / "config.resolved.yaml", resume
        if not config_path.is_file():
            raise click.UsageError(f"{resume}: not a run directory, no config.resolved.yaml in it")
    if config_path is None:
        raise click.UsageError("give -c CONFIG")
    if prefix and run_dir is not None:
        raise click.UsageError("-p is for the default run directory: leave it out with -o and --resume")
    shortcuts = {"setup.num_epochs": nepochs, "setup.seed": seed}
    extra = {key: value for key, value in shortcuts.items() if value is not None}
    config = load_config(config_path, overrides, extra)
    if data_dir is not None:
        config = config.with_data_dir(str(data_dir))
    if run_dir is None:
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S_%f")
        run_dir = Path("experiments") / f"{prefix}{config_path.stem}_{stamp}"
    from mlpf.workflows import train as workflow

    workflow.run(config, run_dir, resume=resume is not None, **options)


@cli.command()
@run_dir_option
@weights_option
@click.option(
    "--nevents", "num_events", type=click.IntRange(1), help="Events per dataset; default the config's."
)
@data_dir_option
def evaluate(run_dir: Path, **options: Any) -> None:
    """Judge a trained model against the rule-based baseline and the truth limits."""
    from mlpf.workflows import evaluate as workflow

    workflow.run(run_dir, **options)


@cli.command()
@run_dir_option
def plots(run_dir: Path) -> None:
    """Draw the figures of an evaluated training and write its report page."""
    from mlpf.workflows import plots as workflow

    workflow.run(run_dir)


@cli.command()
@run_dir_option
@weights_option
@click.option("-o", "--output", type=PATH, help="ONNX file; default RUN_DIR/model.onnx.")
@click.option("--opset", type=click.IntRange(15, 18), help="ONNX opset; default that of the converter.")
def export(run_dir: Path, **options: Any) -> None:
    """Export a trained model to ONNX and check it against Keras."""
    from mlpf.workflows import export as workflow

    workflow.run(run_dir, **options)


@cli.group()
def config() -> None:
    """Check and explain configuration files."""


@config.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@set_option
def check(files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Validate configuration FILES."""
    from mlpf.config.loading import load_config
    from mlpf.errors import ConfigError

    problems = []
    for path in files:
        try:
            load_config(path, overrides)
            click.echo(f"{path}: ok")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


@config.command()
@click.argument("key", default="")
def explain(key: str) -> None:
    """List configuration keys at or below KEY: type, default and meaning."""
    from mlpf.config.explain import explain as explain_keys

    rows = explain_keys(key)
    for row in rows:
        default = f" [{row.default}]" if row.default else ""
        click.echo(f"{row.key}: {row.type}{default}\n    {row.meaning}")


def main(run: Callable[..., Any] = cli.main) -> None:
    """Run the command line; errors of a user become one line each and exit code 2."""
    # Before TensorFlow is imported: our progress and tables are what a user wants to see.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        run(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except MLPFError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(
            f"error: {where}{error.strerror or error}; check path, permission and free space", err=True
        )
        sys.exit(2)
