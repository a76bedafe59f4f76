"""Machine-learned particle flow: detector elements in, particles out.

``__all__`` is what other programs may use; docs/library.md shows how. Nothing is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> module that has it; the imports below say the same to type checkers.
_PUBLIC = {
    "Config": "mlpf.config.schema",
    "load_config": "mlpf.config.loading",
    "Dataset": "mlpf.library",
    "open_dataset": "mlpf.library",
    "TrainedModel": "mlpf.library",
    "build_network": "mlpf.library",
    "load_model": "mlpf.library",
    "predict": "mlpf.library",
    "Predictions": "mlpf.evaluation.predictions",
    "read_predictions": "mlpf.library",
    "evaluate_predictions": "mlpf.evaluation.metrics",
    "jet_response": "mlpf.evaluation.metrics",
    "export_onnx": "mlpf.library",
    "MLPFError": "mlpf.errors",
}

__all__ = [  # noqa: RUF022 - in the order in which they are used
    "__version__",
    "Config",
    "load_config",
    "Dataset",
    "open_dataset",
    "TrainedModel",
    "build_network",
    "load_model",
    "predict",
    "Predictions",
    "read_predictions",
    "evaluate_predictions",
    "jet_response",
    "export_onnx",
    "MLPFError",
]

if TYPE_CHECKING:
    from mlpf.config.loading import load_config
    from mlpf.config.schema import Config
    from mlpf.errors import MLPFError
    from mlpf.evaluation.metrics import evaluate_predictions, jet_response
    from mlpf.evaluation.predictions import Predictions
    from mlpf.library import (
        Dataset,
        TrainedModel,
        build_network,
        export_onnx,
        load_model,
        open_dataset,
        predict,
        read_predictions,
    )


if not TYPE_CHECKING:  # to a type checker only the names above are there

    def __getattr__(name: str) -> Any:
        """Import a public name when it is used for the first time."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'mlpf' has no attribute {name!r}; public are {', '.join(__all__)}")
        value = globals()[name] = getattr(importlib.import_module(_PUBLIC[name]), name)
        return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
