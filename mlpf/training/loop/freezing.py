"""Fine-tuning: freeze the weights that a training does not change."""

from collections.abc import Iterable
from typing import Any, Literal

import keras

from mlpf.models import PFNetDense, PFNetTransformer

Trainable = Literal["all", "classification", "regression", "heads"]

_HEADS = {"classification": ("id", "charge"), "regression": ("pt", "eta", "phi", "energy")}
_STREAMS = {"classification": "id", "regression": "reg"}


def freeze(model: keras.Model, trainable: Trainable) -> None:
    """Freeze all weights that ``trainable`` does not select. Call it before the optimizer is built.

    ``classification`` trains the classification stack and the heads for class and charge. ``regression``
    trains the regression stack and the heads for pt, eta, phi and energy. ``heads`` trains all heads. The
    layer norm before the heads belongs to ``classification`` and to ``heads``. Shared layers (node
    encoding, embedding, encoder) are trained by ``all`` only. The input normalisation is never trained.

    Args:
        model: a built ``PFNetDense`` or ``PFNetTransformer``.
        trainable: see above.

    Raises:
        TypeError: another model, and not ``all``.
    """
    if trainable == "all":
        return
    if not isinstance(model, PFNetDense | PFNetTransformer):
        raise TypeError(f"{type(model).__name__} has no stacks to freeze")
    # Containers stay trainable. Otherwise Keras would treat their trainable layers as frozen.
    kept = {id(part) for part in _parts(model, trainable)}
    for part in (*_shared(model), *_parts(model, "classification"), *_parts(model, "regression")):
        part.trainable = id(part) in kept


def _parts(model: Any, trainable: str) -> Iterable[Any]:
    """Return the layers and own weights of the model that a task trains."""
    decoding = model.decoding
    norm = [] if decoding.layernorm is None else [decoding.layernorm]
    if trainable == "heads":
        return [*norm, *_heads(decoding, "classification"), *_heads(decoding, "regression")]
    stream = _STREAMS[trainable]
    if isinstance(model, PFNetDense):
        stack = {"id": model.cg_id, "reg": model.cg_reg}[stream]
    else:
        stack = [*model.stacks[stream], *([model.tokens[stream]] if model.tokens else [])]
    return [*stack, *(norm if trainable == "classification" else []), *_heads(decoding, trainable)]


def _heads(decoding: Any, task: str) -> list[Any]:
    return [getattr(decoding, f"ffn_{head}") for head in _HEADS[task]]


def _shared(model: Any) -> list[Any]:
    """Return the layers that both tasks share."""
    if isinstance(model, PFNetDense):
        return [model.encoding, *([] if model.node_encoding is None else [model.node_encoding])]
    return [model.encoding, model.embedding, *model.stacks["encoder"]]
