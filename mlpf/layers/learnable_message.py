"""Message passing by the largest learned messages between the elements of a bin."""

from typing import Any

import keras
from keras import ops

from mlpf.layers.feedforward import FFN

# Value of padded neighbours in the maximum: close to the lowest number of each dtype.
LOWEST = {"float16": -6e4}
LOWEST_OF_OTHERS = -3e38


@keras.saving.register_keras_serializable(package="mlpf")
class NodeMessageLearnable(keras.layers.Layer):
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

    def compute_output_shape(self, x_shape, kernel_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return [G, S, D]."""
        return (*tuple(x_shape)[:-1], self.output_dim)

    def compute_output_spec(self, x, *args, **kwargs):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return the specification of the output: float32 under every policy."""
        return keras.KerasTensor(self.compute_output_shape(x.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "activation": self.activation,
        }
