"""Create the directory of a search, and check its settings when it is resumed."""

from pathlib import Path

from mlpf.config.differences import differences
from mlpf.config.loading import load_config, write_resolved
from mlpf.config.schema import Config
from mlpf.engine.opening import ENGINE_FOLDER
from mlpf.errors import CheckpointError, ConfigError, OutputExists
from mlpf.files.run_directory import LOCK_FILE, RESOLVED_CONFIG
from mlpf.search.options import TrialOptions, read_options
from mlpf.search.state import RUNS_FOLDER, require_search


def require_empty(directory: Path) -> None:
    """Refuse a directory with other files than the lock and those of an engine that could not start.

    Raises:
        OutputExists: there are other files.
    """
    ours = {LOCK_FILE, ENGINE_FOLDER}
    if directory.exists() and any(path.name not in ours for path in directory.iterdir()):
        raise OutputExists(f"{directory}: is not empty; choose another directory or continue with --resume")


def require_same(
    config: Config, directory: Path, given: dict[str, int | None], gpus_per_trial: int | None
) -> TrialOptions:
    """Refuse to resume a search with other settings; return its options.

    Args:
        config: the whole configuration.
        directory: directory of the search.
        given: ``ntrain`` and ``ntest`` given now; None = as before.
        gpus_per_trial: given now; None = as before.

    Raises:
        CheckpointError: there is no search in ``directory``.
        ConfigError: settings differ. The message has one line for each.
    """
    path = directory / RESOLVED_CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{directory}: nothing to resume, no {RESOLVED_CONFIG} in it; leave out --resume"
        )
    require_search(directory)
    recorded = read_options(directory)
    changed = differences(load_config(path), config)
    for option, value in given.items():
        before = getattr(recorded, option)
        if value is not None and value != before:
            changed.append(f"--{option}: {'all' if before is None else before} -> {value}")
    if gpus_per_trial is not None and max(gpus_per_trial, 1) != recorded.devices:
        changed.append(f"--gpus-per-trial: {recorded.devices} -> {gpus_per_trial}")
    if changed:
        raise ConfigError(
            "\n".join(
                [
                    f"{directory}: a search cannot be resumed with other settings; these differ "
                    "(before -> now). Change them back, leave out -c, or choose another directory",
                    *changed,
                ]
            )
        )
    return recorded


def lay_out(config: Config, directory: Path, options: TrialOptions) -> None:
    """Write options and configuration. In existing runs, only update where datasets are."""
    options.write(directory)
    write_resolved(config, directory / RESOLVED_CONFIG)
    for path in sorted((directory / RUNS_FOLDER).glob("*.yaml")):
        of_run = load_config(path)
        if of_run.datasets != config.datasets:
            write_resolved(of_run.model_copy(update={"datasets": config.datasets}), path)
