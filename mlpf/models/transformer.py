"""PFNetTransformer: a Performer encoder with a stream for the classes and one for the regression."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mlpf.layers.gradient_checkpointing import recompute
from mlpf.layers.input_encoding import InputEncoding
from mlpf.layers.input_normalization import InputNormalization
from mlpf.layers.output_decoding import OutputDecoding
from mlpf.layers.performer_block import PerformerBlock
from mlpf.models.inputs import element_mask, finite_or_zero

STREAMS = ("stacks", "queries")


@keras.saving.register_keras_serializable(package="mlpf")
class PFNetTransformer(keras.Model):
    """Encode elements, attend, split into two streams, decode. Cost and memory are linear in N.

    ``streams: stacks``: from the encoder's output, one stack of self-attention blocks for the classes and
    one for the regression. ``queries``: each stream is a learned token that attends over the event through
    its own blocks; the summary it gathers is added to every element.

    Args:
        num_input_features: columns F of X.
        num_input_classes: element types, padding included.
        num_output_classes: particle classes C, none included.
        input_encoding: see ``InputEncoding``.
        use_normalizer: standardise inputs (``input_normalization.set_statistics`` before training).
        hidden_dim: width D.
        num_layers_encoder: blocks before the streams part ways.
        num_layers_decoder_id: blocks of the class stream.
        num_layers_decoder_reg: blocks of the regression stream.
        streams: one of ``STREAMS``.
        seed: of the random directions; each block gets its own from it.
        block: other arguments of ``PerformerBlock``.
        output_decoding: arguments of ``OutputDecoding``.
        gradient_checkpointing: compute the blocks again in the backward pass instead of keeping their
            activations: less memory, more time, the same results.
        helix_columns: places of the columns from which positions are computed, None = those of CLIC clusters.
        **kwargs: keyword arguments of ``keras.Model``.
    """

    def __init__(
        self,
        *,
        num_input_features: int,
        num_input_classes: int,
        num_output_classes: int,
        input_encoding: str,
        use_normalizer: bool,
        hidden_dim: int,
        num_layers_encoder: int,
        num_layers_decoder_id: int,
        num_layers_decoder_reg: int,
        streams: str,
        seed: int,
        block: Mapping[str, Any],
        output_decoding: Mapping[str, Any],
        gradient_checkpointing: bool = False,
        helix_columns: Mapping[str, int] | None = None,
        **kwargs: Any,
    ):
        # No cast on entry: the encoding and the heads need X at full precision.
        super().__init__(autocast=False, **kwargs)
        if streams not in STREAMS:
            raise ValueError(f"streams={streams!r}, expected one of {', '.join(STREAMS)}")
        self._config = {
            "num_input_features": num_input_features,
            "num_input_classes": num_input_classes,
            "num_output_classes": num_output_classes,
            "input_encoding": input_encoding,
            "use_normalizer": use_normalizer,
            "hidden_dim": hidden_dim,
            "num_layers_encoder": num_layers_encoder,
            "num_layers_decoder_id": num_layers_decoder_id,
            "num_layers_decoder_reg": num_layers_decoder_reg,
            "streams": streams,
            "seed": seed,
            "block": dict(block),
            "output_decoding": dict(output_decoding),
            "gradient_checkpointing": gradient_checkpointing,
            "helix_columns": None if helix_columns is None else dict(helix_columns),
        }
        self.num_input_features = num_input_features
        self.num_output_classes = num_output_classes
        # No bins, no limit: what the graph network says about itself in the same words.
        self.bin_size = self.max_num_elements = None
        self.streams = streams
        self.gradient_checkpointing = gradient_checkpointing
        self.encoding = InputEncoding(
            num_input_classes, input_encoding, helix_columns=helix_columns, name="input_encoding"
        )
        self.input_normalization = None
        if use_normalizer:
            self.input_normalization = InputNormalization(num_input_classes, name="input_normalization")
        self._make_layers(**self._config)

    def _make_layers(self, **c: Any) -> None:
        """Create the layers that the configuration makes optional or repeats."""
        policy = self.dtype_policy
        # Raw columns do not fit into float16.
        self.embedding = keras.layers.Dense(c["hidden_dim"], dtype="float32", name="embedding")
        depths = {
            "encoder": c["num_layers_encoder"],
            "id": c["num_layers_decoder_id"],
            "reg": c["num_layers_decoder_reg"],
        }
        self.stacks: dict[str, list[PerformerBlock]] = {}
        for name, depth in depths.items():
            first = c["seed"] + sum(len(blocks) for blocks in self.stacks.values())
            self.stacks[name] = [
                PerformerBlock(**c["block"], seed=first + i, dtype=policy, name=f"{name}_{i}")
                for i in range(depth)
            ]
        self.decoding = OutputDecoding(
            c["num_output_classes"], **c["output_decoding"], dtype=policy, name="output_decoding"
        )

    def build(self, input_shape):
        """Create all weights; ``input_shape`` is [B, N, F]."""
        shape = tuple(input_shape)
        if self.input_normalization is not None:
            self.input_normalization.build(shape)
        encoded = self.encoding.compute_output_shape(shape)
        self.embedding.build(encoded)
        hidden = (*shape[:-1], self.embedding.units)
        for blocks in self.stacks.values():
            for block in blocks:
                block.build(hidden)
        self.tokens = {}
        if self.streams == "queries":
            for name in ("id", "reg"):
                self.tokens[name] = self.add_weight(
                    shape=(1, 1, hidden[-1]),
                    initializer=keras.initializers.RandomNormal(stddev=0.02),
                    dtype="float32",
                    autocast=False,
                    name=f"token_{name}",
                )
        self.decoding.build(shape, hidden, hidden)

    def call(self, X, training=False):
        """Return the outputs.

        Args:
            X: [B, N, F] raw columns, column 0 = 0 marks padding; any N.
            training: use dropout, count steps towards a redraw.

        Returns:
            dict of ``OUTPUT_NAMES``, [B, N, .] float32, zero on padding.
        """
        raw = finite_or_zero(X)
        mask = element_mask(raw)
        x = raw if self.input_normalization is None else self.input_normalization(raw)
        h = self.embedding(self.encoding(x, raw))
        for block in self.stacks["encoder"]:
            h = self._run(block, h, None, mask, training)
        streams = [self._stream(name, h, mask, training) for name in ("id", "reg")]
        return self.decoding(raw, *streams, mask, training=training)

    def _stream(self, name: str, h, mask, training):
        """Run one stream, [B, N, D]."""
        if self.streams == "stacks":
            for block in self.stacks[name]:
                h = self._run(block, h, None, mask, training)
            return h
        token = ops.repeat(self.tokens[name], ops.shape(h)[0], axis=0)
        for block in self.stacks[name]:
            token = self._run(block, token, h, mask, training)
        return h + token

    def _run(self, block: PerformerBlock, h, keys, mask, training):
        """Apply one block, [B, Q, D]."""
        if self.gradient_checkpointing:
            return recompute(block, h, keys, mask, training=training)
        return block(h, keys, mask, training=training)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {**super().get_config(), **self._config}
