"""Command line: parse, load the configuration, import one workflow, run it."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from mlpf import __version__
from mlpf.cli import configuration, data, results, site, train_many, training, tuning
from mlpf.engine.end_with_parent import end_with_parent
from mlpf.errors import MLPFError
from mlpf.machine.tensorflow_noise import quieten_tensorflow


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def cli() -> None:
    """Machine-learned particle flow: from detector events to particles.

    A first run: simulate -> postprocess -> build -> train -> evaluate -> plots -> export.
    """


for command in (
    data.download,
    data.data,
    data.simulate,
    data.postprocess,
    data.build,
    training.train,
    train_many.train_many,
    training.find_lr,
    training.import_weights,
    tuning.hypertune,
    results.evaluate,
    results.plots,
    results.export,
    results.infer,
    configuration.config,
    site.site,
):
    cli.add_command(command)


def main(run: Callable[..., Any] = cli.main) -> None:
    """Run the command line. User errors are printed in one line each, with exit code 2.

    A training that was asked to stop exits with code 75, which means that it can be resumed.
    """
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a character that the terminal cannot print must not end the command
    # Before TensorFlow is imported: its messages would hide progress and tables.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    quieten_tensorflow()
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
            click.echo(f"{error.label}: {line}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(
            f"error: {where}{error.strerror or error}; check path, permission and free space", err=True
        )
        sys.exit(2)
