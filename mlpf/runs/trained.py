"""Read configuration and trained model of a run directory."""

import math
from pathlib import Path
from typing import Any

from mlpf.config.loading import load_config
from mlpf.config.model_schema import ModelConfig
from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, ConfigError, EventTooLong, one_line
from mlpf.files.run_directory import ENSEMBLE_FILE, SEARCH_FILE, CheckpointFolder, RunDirectory


def load_run_config(run_dir: Path) -> Config:
    """Read the resolved configuration of a run.

    Raises:
        CheckpointError: ``run_dir`` is not a run directory.
        ConfigError: its configuration is not valid.
    """
    require_run(run_dir)
    return load_config(RunDirectory(run_dir).config)


def require_run(run_dir: Path) -> None:
    """Refuse what is no directory of one training.

    Raises:
        CheckpointError: ``run_dir`` is missing, or holds an ensemble, a search, or something else.
    """
    path = RunDirectory(run_dir).config
    if not path.is_file():
        raise CheckpointError(
            f"{run_dir}: not a run directory, no {path.name} in it; give a directory that mlpf train wrote"
        )
    for file, what in ((ENSEMBLE_FILE, "an ensemble"), (SEARCH_FILE, "a search")):
        if (run_dir / file).is_file():
            raise CheckpointError(
                f"{run_dir}: holds {what}, expected the directory of one training; give one of "
                f"{run_dir / 'runs'}"
            )


def build_network(config: Config) -> Any:
    """Build the Keras model that a configuration describes, for the events that it describes.

    Raises:
        ConfigError: Keras or TensorFlow refuse these sizes.
    """
    import tensorflow as tf

    from mlpf.models import build_model

    dataset = config.dataset
    try:
        return build_model(
            config.parameters,
            dataset.num_input_features,
            dataset.num_input_classes,
            dataset.num_output_classes,
            dataset.helix_columns,
            dataset.detector,
        )
    except (ValueError, TypeError, OverflowError, tf.errors.InvalidArgumentError) as error:
        raise ConfigError(
            f"parameters: the network cannot be built ({one_line(error)}); change the sizes of its layers"
        ) from error


def export_metadata(config: Config, checkpoint: Path) -> dict[str, Any]:
    """Return what an exported file tells of the training: detector, checkpoint, what makes its particles."""
    detector = config.dataset.detector
    return {
        **({} if detector is None else {"detector": detector.model_dump()}),
        "checkpoint": checkpoint.name,
        "jet_algorithm": config.evaluation_jet_algo,
        "none_threshold": config.evaluation_none_threshold,
    }


def count_parameters(model: Any) -> int:
    """Return the number of trainable parameters; those of the input normalisation are not trainable."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def require_detector_of(checkpoint: Path, config: Config, remedy: str) -> None:
    """Refuse weights of a network that was trained for another detector.

    Args:
        checkpoint: folder of the weights; a file without a configuration beside it is taken as it is.
        config: of now.
        remedy: what to do instead.

    Raises:
        CheckpointError: names the first difference.
    """
    try:
        trained = load_config(CheckpointFolder(checkpoint).config)
    except ConfigError:
        return  # published weights have none; one that cannot be read is met when the weights are loaded
    before, now = trained.dataset.detector, config.dataset.detector
    if before is None or now is None:
        return  # events without positions: other columns are refused by shape
    if difference := before.difference(now, "in the checkpoint", "in the configuration"):
        raise CheckpointError(f"{checkpoint}: weights for another detector: {difference}; {remedy}")


def load_trained_model(run_dir: Path, config: Config, weights: str | None = None) -> tuple[Any, Path]:
    """Build the model of a run and load a checkpoint into it.

    Args:
        run_dir: run directory.
        config: its configuration.
        weights: ``best`` (default), ``latest``, or the path of a checkpoint.

    Returns:
        The Keras model and the path of the checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or belongs to another model or detector.
    """
    from mlpf.training.checkpoints.checkpoint import load_weights
    from mlpf.training.checkpoints.store import find_checkpoint

    checkpoint = find_checkpoint(run_dir, weights or "best")
    require_detector_of(checkpoint, config, "give a checkpoint of this run, or evaluate the run it is of")
    model = build_network(config)
    load_weights(checkpoint, model)
    return model, checkpoint


def require_fit(name: str, parameters: ModelConfig, num_elements: int) -> None:
    """Refuse events that are too long for a model.

    Args:
        name: name of the dataset, for the message.
        parameters: section ``parameters`` of the configuration.
        num_elements: elements of the longest event.

    Raises:
        EventTooLong: more than ``parameters.max_num_elements``.
    """
    most = parameters.max_num_elements
    if most is not None and num_elements > most:
        raise EventTooLong(
            f"{name}: an event has {num_elements} elements, the model takes {most}; "
            "raise parameters.combined_graph_layer.max_num_bins and train"
        )
