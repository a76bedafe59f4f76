"""Input encoding: raw columns to the vector that enters the network."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mlpf.layers.helix_encoding import CLIC_COLUMNS, NUM_HELIX_FEATURES, helix_features

ENCODINGS = ("clic", "clic_helix")


@keras.saving.register_keras_serializable(package="mlpf")
class InputEncoding(keras.layers.Layer):
    """One-hot element type and the remaining columns, optionally with the position at the calorimeter.

    Args:
        num_input_classes: element types T, padding included.
        encoding: ``clic`` = one-hot of column 0 and the other columns; ``clic_helix`` appends
            ``helix_features`` of the raw columns.
        radius: radius of the calorimeter face in mm; needed for ``clic_helix`` only.
        half_length: half length of the calorimeter face in mm; likewise.
        helix_columns: places of the columns that ``clic_helix`` needs, None = those of CLIC clusters.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: unknown encoding, or ``clic_helix`` without the face.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1.0, 7.0, 8.0], [2.0, 9.0, 3.0]]], "float32")
        >>> np.asarray(InputEncoding(num_input_classes=3)(x, x))[0].tolist()
        [[0.0, 1.0, 0.0, 7.0, 8.0], [0.0, 0.0, 1.0, 9.0, 3.0]]
    """

    def __init__(
        self,
        num_input_classes: int,
        encoding: str = "clic",
        radius: float | None = None,
        half_length: float | None = None,
        helix_columns: Mapping[str, int] | None = None,
        **kwargs: Any,
    ):
        kwargs["dtype"] = "float32"  # 8 bits of mantissa would lose the positions
        super().__init__(**kwargs)
        if encoding not in ENCODINGS:
            raise ValueError(f"input_encoding={encoding!r}, expected one of {', '.join(ENCODINGS)}")
        if encoding == "clic_helix" and (radius is None or half_length is None):
            raise ValueError(
                "input_encoding='clic_helix' needs radius and half length of the calorimeter face"
            )
        self.num_input_classes = num_input_classes
        self.encoding = encoding
        self.radius: Any = radius
        self.half_length: Any = half_length
        self.helix_columns = dict(CLIC_COLUMNS if helix_columns is None else helix_columns)

    def build(self, x_shape, raw_shape=None):
        """Nothing to build: the encoding has no weights."""

    def call(self, x, raw):
        """Return the encoded elements.

        Args:
            x: [B, N, F], column 0 the element type, the others raw or normalised.
            raw: [B, N, F] raw columns; only ``clic_helix`` uses them.

        Returns:
            [B, N, T + F - 1 (+ NUM_HELIX_FEATURES)] float32.
        """
        kind = ops.one_hot(ops.cast(x[..., 0], "int32"), self.num_input_classes, dtype=x.dtype)
        parts = [kind, x[..., 1:]]
        if self.encoding == "clic_helix":
            parts.append(helix_features(raw, self.radius, self.half_length, self.helix_columns))
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, x_shape, raw_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [B, N, E]."""
        extra = NUM_HELIX_FEATURES if self.encoding == "clic_helix" else 0
        return (*tuple(x_shape)[:-1], self.num_input_classes + x_shape[-1] - 1 + extra)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_input_classes": self.num_input_classes,
            "encoding": self.encoding,
            "radius": self.radius,
            "half_length": self.half_length,
            "helix_columns": dict(self.helix_columns),
        }
