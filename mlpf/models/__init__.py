"""Models: detector elements in, particles out."""

from collections.abc import Mapping

import keras

from mlpf.config.detector import CLIC, DetectorConfig
from mlpf.config.model_schema import GNNConfig, ModelConfig
from mlpf.models.gnn_dense import PFNetDense
from mlpf.models.transformer import PFNetTransformer

_MODELS = {"gnn_dense": PFNetDense, "transformer": PFNetTransformer}

__all__ = ["PFNetDense", "PFNetTransformer", "build_model"]


def build_model(
    config: ModelConfig | None = None,
    num_input_features: int = 17,
    num_input_classes: int = 3,
    num_output_classes: int = 6,
    helix_columns: Mapping[str, int] | None = None,
    detector: DetectorConfig | None = CLIC,
) -> keras.Model:
    """Build a model with its weights, under the dtype policy in force.

    Args:
        config: section ``parameters`` of the configuration; default the published model.
        num_input_features: columns F of X.
        num_input_classes: element types, padding included.
        num_output_classes: particle classes C, none included.
        helix_columns: places in X of the columns from which positions at the calorimeter are computed (see
            ``mlpf.layers.helix_encoding``), None = those of CLIC clusters.
        detector: on whose calorimeter these positions are; None for events without positions.

    Returns:
        A model of X [B, N, F] float32; see ``mlpf.models.interface`` for what it returns.
    """
    config = config or GNNConfig()
    arguments = config.model_dump(exclude={"model", "bucket_size"})  # the latter is for batches only
    model = _MODELS[config.model](
        num_input_features=num_input_features,
        num_input_classes=num_input_classes,
        num_output_classes=num_output_classes,
        helix_columns=helix_columns,
        face=None if detector is None else detector.face_mm,
        name=config.model,
        **arguments,
    )
    model.build((None, None, num_input_features))
    return model
