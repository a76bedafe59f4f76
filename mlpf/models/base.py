"""What both networks have in common: input, encoding and heads around two towers of features."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from mlpf.config.detector import CLIC
from mlpf.layers.gradient_checkpointing import recompute
from mlpf.layers.input_encoding import InputEncoding
from mlpf.layers.input_normalization import InputNormalization
from mlpf.layers.output_decoding import OutputDecoding
from mlpf.models.interface import element_mask, finite_or_zero


class PFNet(keras.Model):
    """Encode elements, compute features for classification and for regression (two towers), decode.

    A network adds its arguments to ``_arguments``, makes its layers in ``__init__``, then calls
    ``_make_decoding``, and defines ``_build_towers`` and ``_run_towers``.

    Args:
        num_input_features: columns F of X.
        num_input_classes: element types, padding included.
        num_output_classes: particle classes C, none included.
        input_encoding: ``clic`` or ``clic_helix``; see ``InputEncoding``.
        use_normalizer: standardise inputs (``input_normalization.set_statistics`` before training).
        output_decoding: arguments of ``OutputDecoding``.
        gradient_checkpointing: compute the layers of the towers again in the backward pass instead of
            keeping their activations: less memory, more time, the same results.
        helix_columns: places of the columns from which positions are computed, None = those of CLIC clusters.
        face: radius and half length of the calorimeter face in mm, on which positions are; None = the network
            needs no positions.
        **kwargs: keyword arguments of ``keras.Model``.
    """

    # Elements per bin and most elements of an event: None where the network has no such limit.
    bin_size: int | None = None
    max_num_elements: int | None = None

    def __init__(
        self,
        *,
        num_input_features: int,
        num_input_classes: int,
        num_output_classes: int,
        input_encoding: str,
        use_normalizer: bool,
        output_decoding: Mapping[str, Any],
        gradient_checkpointing: bool = False,
        helix_columns: Mapping[str, int] | None = None,
        face: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        # No cast on entry: the encoding and the heads need X at full precision.
        super().__init__(autocast=False, **kwargs)
        self._arguments: dict[str, Any] = {
            "num_input_features": num_input_features,
            "num_input_classes": num_input_classes,
            "num_output_classes": num_output_classes,
            "input_encoding": input_encoding,
            "use_normalizer": use_normalizer,
            "output_decoding": dict(output_decoding),
            "gradient_checkpointing": gradient_checkpointing,
            "helix_columns": None if helix_columns is None else dict(helix_columns),
            "face": None if face is None else list(face),
        }
        self.num_input_features = num_input_features
        self.num_output_classes = num_output_classes
        self.gradient_checkpointing = gradient_checkpointing
        radius, half_length = (None, None) if face is None else face
        self.encoding = InputEncoding(
            num_input_classes, input_encoding, radius, half_length, helix_columns, name="input_encoding"
        )
        self.input_normalization = None
        if use_normalizer:
            self.input_normalization = InputNormalization(num_input_classes, name="input_normalization")

    def _make_decoding(self) -> None:
        """Make the heads, after all other layers: checkpoints hold weights in the order of creation."""
        self.decoding = OutputDecoding(
            self.num_output_classes,
            **self._arguments["output_decoding"],
            dtype=self.dtype_policy,
            name="output_decoding",
        )

    def _build_towers(self, encoded: tuple[Any, ...]) -> tuple[int, int]:
        """Create the weights of both towers; return the widths D of their features.

        Args:
            encoded: shape [B, N, E] of the encoded elements.
        """
        raise NotImplementedError

    def _run_towers(self, raw, encoded, mask, training):
        """Return the features for classification [B, N, D] and for regression [B, N, D'].

        Args:
            raw: [B, N, F] raw columns, all finite.
            encoded: [B, N, E] float32 encoded elements.
            mask: [B, N] boolean, True = real element.
            training: use dropout.
        """
        raise NotImplementedError

    def build(self, input_shape):
        """Create all weights; ``input_shape`` is [B, N, F]."""
        shape = tuple(input_shape)
        if self.input_normalization is not None:
            self.input_normalization.build(shape)
        widths = self._build_towers(self.encoding.compute_output_shape(shape))
        self.decoding.build(shape, *((*shape[:-1], width) for width in widths))

    def call(self, X, training=False):
        """Return the outputs.

        Args:
            X: [B, N, F] raw columns, column 0 = 0 marks padding; any N.
            training: use dropout.

        Returns:
            dict of ``OUTPUT_NAMES``, [B, N, .] float32, zero on padding.
        """
        raw = finite_or_zero(X)
        mask = element_mask(raw)
        x = raw if self.input_normalization is None else self.input_normalization(raw)
        h_id, h_reg = self._run_towers(raw, self.encoding(x, raw), mask, training)
        return self.decoding(raw, h_id, h_reg, mask, training=training)

    def _run_layer(self, layer: keras.layers.Layer, *args, training):
        """Call a layer of a tower, with gradient checkpointing if asked."""
        if self.gradient_checkpointing:
            return recompute(layer, *args, training=training)
        return layer(*args, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Models that were saved before they told their face are of CLIC.
        return super().from_config({"face": list(CLIC.face_mm), **config}, custom_objects)
