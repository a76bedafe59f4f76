"""Stands for the package comet_ml and keeps what it is told."""

import importlib.machinery
from typing import Any


class FakeExperiment:
    """One experiment."""

    def __init__(self, kind: str, key: str, options: dict[str, Any]):
        self.kind, self.key, self.options = kind, key, options
        self.name: str | None = None
        self.parameters: dict[str, Any] = {}
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.ended = False

    def get_key(self) -> str:
        return self.key

    def set_name(self, name: str) -> None:
        self.name = name

    def log_parameters(self, parameters: dict[str, Any]) -> None:
        self.parameters |= parameters

    def log_metrics(self, metrics: dict[str, float], step: int, epoch: int) -> None:
        assert step == epoch
        self.metrics.append((epoch, dict(metrics)))

    def end(self) -> None:
        self.ended = True


class FakeComet:
    """The module: its four classes of experiments."""

    __spec__ = importlib.machinery.ModuleSpec("comet_ml", None)

    def __init__(self, refuses: str | None = None):
        self.experiments: list[FakeExperiment] = []
        self.refuses = refuses

    def _new(self, kind: str, options: dict[str, Any]) -> FakeExperiment:
        if self.refuses is not None:
            raise ValueError(self.refuses)
        key = options.pop("experiment_key", f"key{len(self.experiments)}")
        self.experiments.append(FakeExperiment(kind, key, options))
        return self.experiments[-1]

    def Experiment(self, **options: Any) -> FakeExperiment:
        return self._new("Experiment", options)

    def OfflineExperiment(self, *, offline_directory: str, **options: Any) -> FakeExperiment:
        return self._new("OfflineExperiment", options | {"offline_directory": offline_directory})

    def ExistingExperiment(self, *, experiment_key: str, **options: Any) -> FakeExperiment:
        return self._new("ExistingExperiment", options | {"experiment_key": experiment_key})

    def ExistingOfflineExperiment(
        self, *, experiment_key: str, offline_directory: str, **options: Any
    ) -> FakeExperiment:
        options |= {"experiment_key": experiment_key, "offline_directory": offline_directory}
        return self._new("ExistingOfflineExperiment", options)
