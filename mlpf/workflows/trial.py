"""One trial of a search: the ordinary training up to an epoch, within limits, with an outcome in a file."""

import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mlpf.config.hypertune_schema import HypertuneConfig
from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, ConfigError, MLPFError
from mlpf.evaluation.latency import measure
from mlpf.run_files import CHECKPOINTS_FOLDER, HISTORY_FILE
from mlpf.training.guard import TrainingStopped
from mlpf.training.watching import TrainingDiverged
from mlpf.tuning.state import read_search
from mlpf.tuning.trial_files import FAILED, TrialFiles, read_json, write_json
from mlpf.workflows import train
from mlpf.workflows.physics_validation import graph_forward
from mlpf.workflows.trained import build_network
from mlpf.workflows.trainer_setup import prepare_process
from mlpf.workflows.training_data import build_loaders

# Names under which an objective can use what is measured of a network.
NUM_PARAMETERS, INFERENCE_MS = "num_parameters", "inference_ms"
_TIMED_EVENTS = 16
_TIMED_RUNS = 3
# What allocators of TensorFlow, XLA, CUDA and HIP say; some of it comes in errors of other classes.
_MEMORY_WORDS = ("resource_exhausted", "out of memory", "oom when allocating", "failed to allocate memory")


class TrialFailed(MLPFError):
    """A trial cannot be trained, and another attempt would end alike."""

    exit_code = FAILED
    label = "failed"


def run(
    directory: Path,
    name: str,
    *,
    epochs: int,
    num_cpus: int | None = None,
    ntrain: int | None = None,
    ntest: int | None = None,
) -> None:
    """Train a run of a search up to an epoch; go on where it was.

    Args:
        directory: of the search.
        name: of the run; its configuration is there.
        epochs: train up to the end of this epoch of the schedule of ``setup.num_epochs``.
        num_cpus: threads; None = all cores.
        ntrain: most training events per dataset.
        ntest: most validation events.

    Raises:
        TrialFailed: memory, NaN, a limit, or a configuration that is refused; the outcome says which.
        TrainingStopped: asked to stop; all is saved.
        DataError: the data cannot be read; not the fault of the trial.
    """
    files = TrialFiles(directory, name)
    limits = read_search(directory).config.hypertune
    outcome: dict[str, Any] = {"state": "failed", "kind": "", "reason": "", "epochs": 0}
    options = {"num_cpus": num_cpus, "ntrain": ntrain, "ntest": ntest}
    try:
        config = load_config(files.config)
        outcome |= _measured(config, limits, files.network, num_cpus, ntest)
        if reason := _above_limit(outcome, limits):
            raise _Failure("limit", reason)
        outcome["epochs"] = _train(config, files, epochs, options)
        outcome["state"] = "completed"
    except TrainingStopped as error:
        outcome |= {"state": "stopped", "reason": str(error)}
        raise
    except _Failure as error:
        outcome |= {"kind": error.kind, "reason": str(error)}
    except TrainingDiverged as error:
        outcome |= {"kind": "nan", "reason": str(error)}
    except ConfigError as error:
        outcome |= {"kind": "refused", "reason": str(error)}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        outcome |= {"kind": "memory", "reason": f"out of memory: {_first_line(error)}"}
    finally:
        if outcome["state"] != "failed" or outcome["kind"]:
            write_json(files.outcome, outcome)
    if outcome["state"] == "failed":
        raise TrialFailed(f"{name}: {outcome['reason']}")


class _Failure(Exception):
    """A failure of a kind."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, of the machine or of a GPU, was short."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    text = str(error).lower()
    return any(words in text for words in _MEMORY_WORDS)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _train(config: Config, files: TrialFiles, epochs: int, options: dict[str, Any]) -> int:
    """Train what is missing; return the number of epochs in the history."""
    run_dir = files.run_dir
    resume = (run_dir / CHECKPOINTS_FOLDER / "latest.json").is_file()
    if not resume:
        history = read_json(run_dir / HISTORY_FILE, list)
        if history:
            raise CheckpointError(
                f"{run_dir}: {len(history)} epochs, but no checkpoint to continue from; was it removed by hand?"
            )
        shutil.rmtree(run_dir, ignore_errors=True)  # killed before its first checkpoint
    summary = train.run(
        config, run_dir, resume=resume, stop_after=epochs, started=time.monotonic(), **options
    )
    return len(summary.history)


def _measured(
    config: Config, limits: HypertuneConfig | None, path: Path, num_cpus: int | None, ntest: int | None
) -> dict[str, float]:
    """Return size and, if somebody wants it, speed of the network; measured once per run."""
    known = read_json(path, dict)
    timed = limits is not None and (
        limits.max_inference_ms is not None or INFERENCE_MS in limits.objective_terms
    )
    if NUM_PARAMETERS in known and (INFERENCE_MS in known or not timed):
        return known
    prepare_process(config, num_cpus)
    model = _built(config)
    found = {NUM_PARAMETERS: float(model.count_params())}
    if timed:
        found[INFERENCE_MS] = inference_ms(config, model, ntest)
    keras.utils.clear_session()  # the layers of the training get the names that they have without us
    write_json(path, found)
    return found


def _built(config: Config) -> keras.Model:
    try:
        return build_network(config)
    except (ValueError, TypeError) as error:
        raise _Failure("refused", f"the model cannot be built: {_first_line(error)}") from None


def inference_ms(config: Config, model: keras.Model, ntest: int | None = None) -> float:
    """Return the time of one forward pass of one event in ms, the median over validation events.

    Args:
        config: the whole configuration.
        model: the network.
        ntest: most validation events.
    """
    _, valid = build_loaders(config, 1, ntrain=1, ntest=ntest)
    forward = graph_forward(model, config.dataset.num_input_features)
    size = config.parameters.bucket_size
    times = []
    for number in range(min(_TIMED_EVENTS, valid.pool.num_events)):
        length = -(-int(valid.pool.lengths[number]) // size) * size
        X = valid.pool.fetch_padded(np.array([number]), length)["X"]
        times.append(measure({"network": forward}, X, _TIMED_RUNS)[0].p50_ms)
    return float(np.median(times))


def _above_limit(found: dict[str, Any], limits: HypertuneConfig | None) -> str:
    """Say which limit a network is above, nothing if none."""
    if limits is None:
        return ""
    number, milliseconds = found[NUM_PARAMETERS], found.get(INFERENCE_MS)
    if limits.max_parameters is not None and number > limits.max_parameters:
        return f"{number:.0f} parameters, hypertune.max_parameters is {limits.max_parameters}"
    if limits.max_inference_ms is not None and milliseconds > limits.max_inference_ms:
        return f"{milliseconds:.3g} ms per event, hypertune.max_inference_ms is {limits.max_inference_ms:g}"
    return ""
