"""PFNetTransformer: a Performer encoder with a stream for the classes and one for the regression."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from mlpf.layers.performer_block import PerformerBlock
from mlpf.models.base import PFNet

STREAMS = ("stacks", "queries")


@keras.saving.register_keras_serializable(package="mlpf")
class PFNetTransformer(PFNet):
    """An encoder of self-attention blocks, then two streams. Cost and memory are linear in N.

    ``streams: stacks``: from the encoder's output, one stack of self-attention blocks for the classes and
    one for the regression. ``queries``: each stream is a learned token that attends over the event through
    its own blocks; the summary it gathers is added to every element.

    Args:
        hidden_dim: width D.
        num_layers_encoder: blocks before the streams part ways.
        num_layers_decoder_id: blocks of the class stream.
        num_layers_decoder_reg: blocks of the regression stream.
        streams: one of ``STREAMS``.
        seed: of the random directions; each block gets its own from it.
        block: other arguments of ``PerformerBlock``.
        **kwargs: arguments of ``PFNet``.

    Raises:
        ValueError: unknown ``streams``.

    Example:
        >>> import numpy as np
        >>> from mlpf.config.model_schema import TransformerConfig
        >>> from mlpf.models import build_model
        >>> network = build_model(TransformerConfig(model="transformer", num_layers_encoder=1))
        >>> network(np.ones((2, 20, 17), "float32"))["cls"].shape
        TensorShape([2, 20, 6])
    """

    def __init__(
        self,
        *,
        hidden_dim: int,
        num_layers_encoder: int,
        num_layers_decoder_id: int,
        num_layers_decoder_reg: int,
        streams: str,
        seed: int,
        block: Mapping[str, Any],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if streams not in STREAMS:
            raise ValueError(f"streams={streams!r}, expected one of {', '.join(STREAMS)}")
        self._arguments |= {
            "hidden_dim": hidden_dim,
            "num_layers_encoder": num_layers_encoder,
            "num_layers_decoder_id": num_layers_decoder_id,
            "num_layers_decoder_reg": num_layers_decoder_reg,
            "streams": streams,
            "seed": seed,
            "block": dict(block),
        }
        self.streams = streams
        # Raw columns do not fit into float16.
        self.embedding = keras.layers.Dense(hidden_dim, dtype="float32", name="embedding")
        depths = {"encoder": num_layers_encoder, "id": num_layers_decoder_id, "reg": num_layers_decoder_reg}
        self.stacks: dict[str, list[PerformerBlock]] = {}
        for name, depth in depths.items():
            first = seed + sum(len(blocks) for blocks in self.stacks.values())
            self.stacks[name] = [
                PerformerBlock(**block, seed=first + i, dtype=self.dtype_policy, name=f"{name}_{i}")
                for i in range(depth)
            ]
        self._make_decoding()

    def _build_towers(self, encoded: tuple[Any, ...]) -> tuple[int, int]:
        self.embedding.build(encoded)
        width = self.embedding.units
        for blocks in self.stacks.values():
            for block in blocks:
                block.build((*encoded[:-1], width))
        self.tokens = {}
        if self.streams == "queries":
            for name in ("id", "reg"):
                self.tokens[name] = self.add_weight(
                    shape=(1, 1, width),
                    initializer=keras.initializers.RandomNormal(stddev=0.02),
                    dtype="float32",
                    autocast=False,
                    name=f"token_{name}",
                )
        return width, width

    def _run_towers(self, raw, encoded, mask, training):  # noqa: ARG002 - attention needs no positions
        h = self.embedding(encoded)
        for block in self.stacks["encoder"]:
            h = self._run_layer(block, h, None, mask, training=training)
        return self._run_stream("id", h, mask, training), self._run_stream("reg", h, mask, training)

    def _run_stream(self, name: str, h, mask, training):
        """Run one stream, [B, N, D]."""
        if self.streams == "stacks":
            for block in self.stacks[name]:
                h = self._run_layer(block, h, None, mask, training=training)
            return h
        token = ops.repeat(self.tokens[name], ops.shape(h)[0], axis=0)
        for block in self.stacks[name]:
            token = self._run_layer(block, token, h, mask, training=training)
        return h + token
