"""Message passing between the elements of a bin: graph convolution, or the largest of learned messages."""

from typing import Any

import keras
from keras import ops

from mlpf.layers.feedforward import FFN
from mlpf.layers.flatten import to_rows

DEGREE_EPSILON = 1e-6
# Sums over 256 neighbours reach half of the largest float16 number before any training. In float16, inputs
# are therefore multiplied by a power of two, which is exact, and results divided by it.
FLOAT16_MAX = 65504.0
FLOAT16_SHRINK = 1.0 / 64.0


class _Message(keras.layers.Layer):
    """New features of the elements of a bin, of width ``output_dim``."""

    output_dim: int

    def compute_output_shape(self, x_shape, kernel_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [G, S, D]."""
        return (*tuple(x_shape)[:-1], self.output_dim)

    def compute_output_spec(self, x, *args, **kwargs):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return the specification of the output: float32 under every policy."""
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype="float32")


@keras.saving.register_keras_serializable(package="mlpf")
class GHConvDense(_Message):
    """Graph convolution with a gate g between neighbours (hom) and the element itself (het).

    out = act(g * A x theta + (1 - g) * x W_h), g = sigmoid(x W_t + b_t).

    The matrix products run in the compute dtype, mixture and activation in float32.

    Args:
        output_dim: width D of the output.
        activation: activation of the message.
        normalize_degrees: replace A by s A s with s_i = (sum_j |A_ij| + 1e-6)^(-1/2).
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Example:
        >>> import numpy as np
        >>> nodes, kernel = np.ones((3, 4, 8), "float32"), np.ones((3, 4, 4), "float32")
        >>> GHConvDense(output_dim=6)(nodes, kernel).shape
        TensorShape([3, 4, 6])
    """

    def __init__(
        self, output_dim: int, activation: str = "elu", normalize_degrees: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.output_dim = output_dim
        self.activation = activation
        self.normalize_degrees = normalize_degrees
        self._activate = keras.activations.get(activation)

    def build(self, x_shape, kernel_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the weights w_t, w_h, theta [D_in, D] and b_t [D]."""
        shape = (x_shape[-1], self.output_dim)

        def normal(name: str, shape: tuple[int, ...]):
            initializer = keras.initializers.RandomNormal(stddev=0.05)
            return self.add_weight(shape=shape, initializer=initializer, name=name)

        self.w_t = normal("w_t", shape)
        self.b_t = normal("b_t", shape[1:])
        self.w_h = normal("w_h", shape)
        self.theta = normal("theta", shape)

    def call(self, x, kernel, mask=None):
        """Return the new node features.

        Args:
            x: [G, S, D_in] node features of G bins.
            kernel: [G, S, S] pair kernel A, or [G, H, S, S], one kernel for each of H equal slices of the D
                neighbour features. A column of zeros keeps an element (padding) from being seen.
            mask: [G, S] boolean, True = real element; only degrees need it.

        Returns:
            [G, S, D] float32.
        """
        bins = (-1, ops.shape(kernel)[-1], self.output_dim)
        is_float16 = self.compute_dtype == "float16"
        rows = to_rows(x)
        if is_float16:
            rows = rows * FLOAT16_SHRINK
        neighbours = ops.reshape(ops.matmul(rows, self.theta), bins)
        if len(kernel.shape) == 3:
            hom = self._sum_neighbours(kernel, neighbours, mask)
        else:
            sliced = _split_heads(neighbours, kernel.shape[1])
            hom = _merge_heads(self._sum_neighbours(kernel, sliced, mask))
        het, gate = ops.matmul(rows, self.w_h), ops.matmul(rows, self.w_t)
        if is_float16:
            # Clip what overflows nevertheless: 0 times infinity would be NaN.
            hom, het, gate = (
                ops.clip(ops.cast(t, "float32"), -FLOAT16_MAX, FLOAT16_MAX) / FLOAT16_SHRINK
                for t in (hom, het, gate)
            )
        gate = ops.sigmoid(ops.add(gate, ops.cast(self.b_t, gate.dtype)))
        hom, het, gate = (ops.cast(to_rows(t), "float32") for t in (hom, het, gate))
        return ops.reshape(self._activate(gate * hom + (1.0 - gate) * het), bins)

    def _sum_neighbours(self, kernel, neighbours, mask):
        """Return A x for kernel [..., S, S] and neighbours [..., S, D], with normalised degrees if asked."""
        if not self.normalize_degrees:
            return ops.matmul(kernel, neighbours)
        degree = ops.sum(ops.abs(ops.cast(kernel, "float32")), axis=-1, keepdims=True)
        # Padded bins have degree 0: 1e-6^(-1/2) would overflow half precision, therefore their scale is 0.
        scale = ops.where(degree > 0, ops.rsqrt(degree + DEGREE_EPSILON), 0.0)
        if mask is not None:
            # Padded elements get scale 0 too, because their features may be large.
            real = ops.expand_dims(mask if len(kernel.shape) == 3 else ops.expand_dims(mask, 1), -1)
            scale = ops.where(real, scale, 0.0)
        scale = ops.cast(scale, self.compute_dtype)
        return scale * ops.matmul(kernel, scale * neighbours)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "activation": self.activation,
            "normalize_degrees": self.normalize_degrees,
        }


def _split_heads(x, num_heads: int):
    """Turn [G, S, D] into [G, H, S, D / H]."""
    x = ops.reshape(x, (-1, ops.shape(x)[1], num_heads, x.shape[-1] // num_heads))
    return ops.transpose(x, (0, 2, 1, 3))


def _merge_heads(x):
    """Turn [G, H, S, D / H] back into [G, S, D]."""
    merged = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(merged, (-1, ops.shape(x)[2], x.shape[1] * x.shape[3]))


# Value of padded neighbours in the maximum: close to the lowest number of each dtype.
LOWEST = {"float16": -6e4}
LOWEST_OF_OTHERS = -3e38


@keras.saving.register_keras_serializable(package="mlpf")
class NodeMessageLearnable(_Message):
    """out_i = act(FFN([x_i, max_j A_ji, max_j A_ij])): the node, its largest incoming and outgoing messages.

    The option of that name of the published code (v1.6). Messages are the channels of a trainable kernel;
    j runs over the real elements of the bin, i included.

    Args:
        output_dim: width D of the output.
        hidden_dim: width of the hidden layers.
        num_layers: hidden layers.
        activation: activation of the hidden layers and of the output.
        **kwargs: keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: the kernel has no channels.

    Example:
        >>> import numpy as np
        >>> nodes, kernel = np.ones((3, 4, 8), "float32"), np.ones((3, 2, 4, 4), "float32")
        >>> mask = np.ones((3, 4), bool)
        >>> NodeMessageLearnable(output_dim=6)(nodes, kernel, mask).shape
        TensorShape([3, 4, 6])
    """

    def __init__(
        self,
        output_dim: int,
        hidden_dim: int = 128,
        num_layers: int = 1,
        activation: str = "elu",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.output_dim = output_dim
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.activation = activation
        self._activate = keras.activations.get(activation)
        self.ffn = FFN(
            output_dim, hidden_dim, num_layers, activation=activation, dtype=self.dtype_policy, name="ffn"
        )

    def build(self, x_shape, kernel_shape, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the weights; ``x_shape`` is [G, S, D_in], ``kernel_shape`` [G, C, S, S]."""
        if len(kernel_shape) != 4:
            raise ValueError(f"kernel of shape {tuple(kernel_shape)}, expected [G, C, S, S] with channels C")
        self.ffn.build((*tuple(x_shape)[:-1], x_shape[-1] + 2 * kernel_shape[1]))

    def call(self, x, kernel, mask):
        """Return the new node features.

        Args:
            x: [G, S, D_in] node features of G bins.
            kernel: [G, C, S, S] messages from i to j.
            mask: [G, S] boolean, True = real element.

        Returns:
            [G, S, D] float32, zero for padded elements.
        """
        real = ops.expand_dims(mask, axis=-1)
        parts = [ops.where(real, x, 0.0)]
        sender = ops.expand_dims(ops.expand_dims(mask, 1), -1)  # [G, 1, S, 1]
        receiver = ops.expand_dims(ops.expand_dims(mask, 1), -2)
        lowest = LOWEST.get(self.compute_dtype, LOWEST_OF_OTHERS)
        for exists, axis in ((sender, -2), (receiver, -1)):
            largest = ops.max(ops.where(exists, kernel, lowest), axis=axis, initial=lowest)  # [G, C, S]
            # A bin without real elements has no largest message: its elements become zero, like all padding.
            parts.append(ops.where(real, ops.swapaxes(largest, -1, -2), 0.0))
        out = self._activate(self.ffn(ops.concatenate(parts, axis=-1)))
        return ops.where(real, out, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "activation": self.activation,
        }
