"""Stands for Comet where that is not installed: a package that can be imported, and keeps what it is told."""

from typing import Any


class _Experiment:
    """One experiment."""

    def __init__(self, *, experiment_key: str | None = None, **options: Any):
        if refuses is not None:
            raise ValueError(refuses)
        self.kind = type(self).__name__
        self.key = experiment_key or f"key{len(experiments)}"
        self.options = options
        self.name: str | None = None
        self.parameters: dict[str, Any] = {}
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.ended = False
        experiments.append(self)

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


experiments: list[_Experiment] = []
# What an experiment is refused with.
refuses: str | None = None


class Experiment(_Experiment):
    pass


class ExistingExperiment(_Experiment):
    def __init__(self, *, experiment_key: str, **options: Any):
        super().__init__(experiment_key=experiment_key, **options)


class OfflineExperiment(_Experiment):
    def __init__(self, *, offline_directory: str, **options: Any):
        super().__init__(offline_directory=offline_directory, **options)


class ExistingOfflineExperiment(_Experiment):
    def __init__(self, *, experiment_key: str, offline_directory: str, **options: Any):
        super().__init__(experiment_key=experiment_key, offline_directory=offline_directory, **options)
