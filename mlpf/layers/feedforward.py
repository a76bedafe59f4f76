"""Feed-forward network applied to every element on its own."""

from collections.abc import Sequence
from typing import Any

import keras

from mlpf.layers.flatten import from_rows, to_rows


@keras.saving.register_keras_serializable(package="mlpf")
class FFN(keras.layers.Layer):
    """``num_layers`` x [Dense(width, activation), Dropout], then a linear Dense of ``d_out`` in float32.

    Args:
        d_out: output width.
        width: width of the first hidden layer.
        num_layers: hidden layers.
        activation: activation of the hidden layers.
        dropout: dropout rate after each hidden layer.
        dim_decrease: halve the width after each hidden layer.
        output_bias: initial value of the output bias; with it the output kernel starts small, so that
            the network starts close to that constant.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Example:
        >>> import numpy as np
        >>> FFN(d_out=3, width=16, num_layers=2)(np.ones((2, 5, 8), "float32")).shape
        TensorShape([2, 5, 3])
    """

    def __init__(
        self,
        d_out: int,
        width: int,
        num_layers: int,
        activation: str = "elu",
        dropout: float = 0.0,
        dim_decrease: bool = False,
        output_bias: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if output_bias is not None and len(output_bias) != d_out:
            raise ValueError(f"output_bias has {len(output_bias)} values, expected d_out={d_out}")
        self.d_out = d_out
        self.width = width
        self.num_layers = num_layers
        self.activation = activation
        self.dropout = dropout
        self.dim_decrease = dim_decrease
        self.output_bias = None if output_bias is None else tuple(output_bias)
        widths = [max(1, width >> i) if dim_decrease else width for i in range(num_layers)]
        self.hidden = [
            keras.layers.Dense(w, activation=activation, dtype=self.dtype_policy, name=f"dense_{i}")
            for i, w in enumerate(widths)
        ]
        self.dropouts = [
            keras.layers.Dropout(dropout, dtype=self.dtype_policy, name=f"dropout_{i}")
            for i in range(num_layers if dropout > 0 else 0)
        ]
        start: dict[str, Any] = {}
        if self.output_bias is not None:
            start = {
                "kernel_initializer": keras.initializers.RandomNormal(stddev=0.01),
                "bias_initializer": _Values(self.output_bias),
            }
        # Always float32: outputs are distances, logits and regressed quantities.
        self.out = keras.layers.Dense(d_out, dtype="float32", name=f"dense_{num_layers}", **start)

    def build(self, input_shape):
        """Create the weights; ``input_shape`` is [..., width of the input]."""
        shape = tuple(input_shape)
        for dense in self.hidden:
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
        self.out.build(shape)

    def call(self, x, training=False):
        """Map x [..., D_in] to [..., d_out] float32."""
        rows = to_rows(x)
        for i, dense in enumerate(self.hidden):
            rows = dense(rows)
            if self.dropouts:
                rows = self.dropouts[i](rows, training=training)
        rows = self.out(rows)
        return rows if len(x.shape) == 2 else from_rows(rows, like=x)

    def compute_output_shape(self, input_shape):
        """Return [..., d_out]."""
        return (*tuple(input_shape)[:-1], self.d_out)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "d_out": self.d_out,
            "width": self.width,
            "num_layers": self.num_layers,
            "activation": self.activation,
            "dropout": self.dropout,
            "dim_decrease": self.dim_decrease,
            "output_bias": self.output_bias,
        }


@keras.saving.register_keras_serializable(package="mlpf")
class _Values(keras.initializers.Initializer):
    """Initialise a vector with the values given."""

    def __init__(self, values: Sequence[float]):
        self.values = tuple(values)

    def __call__(self, shape, dtype=None):
        """Return the values; ``shape`` must be (len(values),)."""
        return keras.ops.reshape(keras.ops.convert_to_tensor(self.values, dtype=dtype or "float32"), shape)

    def get_config(self) -> dict[str, Any]:
        return {"values": self.values}
