"""The names of all files in a run directory. No other module spells them.

``docs/architecture.md`` lists them, and a test compares the two.
"""

from dataclasses import dataclass
from pathlib import Path

# The directories of searches and of ensembles have these two files as well.
RESOLVED_CONFIG = "config.resolved.yaml"
LOCK_FILE = ".lock"
# Directories of many trainings hold a configuration, too; these files tell them from a run directory.
ENSEMBLE_FILE = "ensemble.json"
SEARCH_FILE = "options.json"


@dataclass(frozen=True)
class RunDirectory:
    """The files of one training and of what was made from it. Nothing is read, written or created.

    Example:
        >>> RunDirectory(Path("experiments/first")).predictions("clic_edm4hep/ttbar").as_posix()
        'experiments/first/predictions/clic_edm4hep_ttbar.parquet'

    Attributes:
        path: the run directory.
    """

    path: Path

    @property
    def lock(self) -> Path:
        """Lock of the process that trains. The file stays when the process ends."""
        return self.path / LOCK_FILE

    @property
    def config(self) -> Path:
        """Whole configuration of the run."""
        return self.path / RESOLVED_CONFIG

    @property
    def environment(self) -> Path:
        """Versions of packages, devices and event limits of the training."""
        return self.path / "environment.json"

    @property
    def status(self) -> Path:
        """State of the training: running, finished, stopped or failed."""
        return self.path / "status.json"

    @property
    def history(self) -> Path:
        """List with one record per epoch."""
        return self.path / "history.json"

    @property
    def reference(self) -> Path:
        """What baseline, targets and limits reach on the validation events."""
        return self.path / "validation_reference.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard files."""
        return self.path / "logs"

    @property
    def comet_key(self) -> Path:
        """Key of the Comet experiment."""
        return self.path / "comet.json"

    @property
    def comet_offline(self) -> Path:
        """Folder of an offline Comet experiment."""
        return self.path / "comet"

    def diverged_batch(self, epoch: int | str, step: int | str) -> Path:
        """Batch at which the loss was not finite; a JSON file of the same name describes it."""
        return self.path / "diverged" / f"epoch_{epoch}_step_{step}.npz"

    @property
    def checkpoints(self) -> Path:
        """Folder with one folder per checkpoint."""
        return self.path / "checkpoints"

    def pointer(self, which: str) -> Path:
        """File that names a checkpoint folder: ``best`` or ``latest``."""
        return self.checkpoints / f"{which}.json"

    @property
    def metrics(self) -> Path:
        """Numbers of ``mlpf evaluate``."""
        return self.path / "metrics.json"

    def predictions(self, dataset: str) -> Path:
        """Particles of the network for a dataset, by ``mlpf evaluate``."""
        return self.path / "predictions" / f"{dataset.replace('/', '_')}.parquet"

    @property
    def figures(self) -> Path:
        """Folder of the figures of ``mlpf plots``."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """Page of ``mlpf plots``."""
        return self.path / "report.html"

    @property
    def export(self) -> "ExportFiles":
        """Files of ``mlpf export``, unless another place was given."""
        return ExportFiles(self.path / "model.onnx")


@dataclass(frozen=True)
class CheckpointFolder:
    """The files of one checkpoint.

    Attributes:
        path: its folder, such as ``checkpoints/epoch_3``.
    """

    path: Path

    @property
    def weights(self) -> Path:
        """Weights of the model; the averaged ones if the optimizer averages."""
        return self.path / "model.weights.h5"

    @property
    def raw_weights(self) -> Path:
        """Weights that the training goes on with, if the optimizer averages."""
        return self.path / "raw.weights.h5"

    @property
    def optimizer(self) -> Path:
        """Variables of the optimizer."""
        return self.path / "optimizer.npz"

    @property
    def random_states(self) -> Path:
        """States of the random generators of all processes."""
        return self.path / "random.npz"

    @property
    def state(self) -> Path:
        """Epoch, step and history."""
        return self.path / "state.json"

    @property
    def config(self) -> Path:
        """Whole configuration of the run."""
        return self.path / RESOLVED_CONFIG


@dataclass(frozen=True)
class ExportFiles:
    """The files of one export, beside each other in any folder.

    Attributes:
        float32: ONNX file in full precision; the names of the others derive from its name.
    """

    float32: Path

    def onnx(self, precision: str) -> Path:
        """ONNX file of a precision."""
        if precision == "float32":
            return self.float32
        return self.float32.with_stem(f"{self.float32.stem}_{precision}")

    @property
    def card(self) -> Path:
        """Model card of all precisions."""
        return self.float32.with_name("model_card.json")
