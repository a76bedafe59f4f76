"""A small model with the outputs of the real one, quick to trace."""

import keras
from keras import ops

from mlpf.physics.features import NUM_CLIC_FEATURES
from mlpf.physics.particles import NUM_CLASSES
from mlpf.training.losses.targets import REGRESSION_NAMES


class Decode(keras.layers.Layer):
    """Dense heads with dropout, zero on padding."""

    def __init__(self, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        widths = {"cls": NUM_CLASSES, "charge": 3} | dict.fromkeys(REGRESSION_NAMES, 1)
        self.heads = {name: keras.layers.Dense(width, name=name) for name, width in widths.items()}
        self.hidden = keras.layers.Dense(16, activation="tanh", name="hidden")
        self.drop = keras.layers.Dropout(dropout, name="drop")

    def build(self, shape):
        self.hidden.build(shape)
        for head in self.heads.values():
            head.build((*shape[:-1], 16))

    def call(self, X, training=False):
        mask = ops.cast(X[..., :1] != 0, "float32")
        hidden = self.drop(self.hidden(ops.tanh(X)), training=training)
        return {name: ops.cast(head(hidden), "float32") * mask for name, head in self.heads.items()}


def tiny_model(seed: int = 0, dropout: float = 0.0) -> keras.Model:
    """Return a model whose weights follow from ``seed``."""
    keras.utils.set_random_seed(seed)
    X = keras.Input((None, NUM_CLIC_FEATURES), name="X")
    return keras.Model(X, Decode(dropout, name="decode")(X), name="tiny")
