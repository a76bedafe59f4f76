"""Output heads: node features to particles."""

from typing import Any

import keras
from keras import ops

from mlpf.layers.feedforward import FFN
from mlpf.layers.flatten import from_rows, to_rows

# Position in X of the quantities that the heads correct: the same for tracks and clusters.
PT, ETA, SIN_PHI, COS_PHI, ENERGY = 1, 2, 3, 4, 5
NUM_CHARGES = 3
MAX_ETA = 7.0
# Exponential corrections multiply by exp(a). MAX_LOG_FACTOR is the largest |a|, which keeps exp(a) finite.
# SMALLEST_ELEMENT (GeV) is the smallest value multiplied: an element of 0 GeV can still become a particle.
MAX_LOG_FACTOR = 10.0
SMALLEST_ELEMENT = 1e-3
HEADS = ("id", "charge", "pt", "eta", "phi", "energy")


# Mode of correction -> initial biases of the outputs: the measured value stays almost as it is.
_LINE, _NOTHING = (1.0, 0.0), (0.0,)
_PT_BIAS = {False: None, True: _LINE, "exponential": _NOTHING}
_ENERGY_BIAS = {"additive": _NOTHING, "linear": _LINE, "exponential": _NOTHING}


@keras.saving.register_keras_serializable(package="mlpf")
class OutputDecoding(keras.layers.Layer):
    """Six heads; eta and phi see the classification features, pt and energy both stacks.

    The class logits enter the regression heads without gradient, twice in those of pt and energy, as in the
    published model.

    Args:
        num_output_classes: particle classes C, none included.
        activation: activation of the heads.
        regression_use_classification: feed the class logits to the regression heads.
        dropout: dropout rate in the heads.
        layernorm: normalise the classification features first.
        pt_as_correction: False: pt = |a|; True: pt = |a pt_in + b|, starting at a = 1, b = 0;
            ``exponential``: pt = max(pt_in, 1 MeV) exp(a), |a| <= 10, starting at a = 0, always positive.
        energy_as_correction: ``additive`` E = |E_in + a|; ``linear`` E = |a E_in + b|, starting at 1 and 0;
            ``exponential`` as for pt.
        **kwargs: ``<head>_hidden_dim``, ``<head>_num_layers``, ``<head>_dim_decrease`` for each of ``HEADS``
            (default 128, 1, True) and keyword arguments of ``keras.layers.Layer``.

    Raises:
        ValueError: unknown ``pt_as_correction`` or ``energy_as_correction``.

    Example:
        >>> import numpy as np
        >>> x, nodes = np.ones((2, 5, 17), "float32"), np.ones((2, 5, 8), "float32")
        >>> mask = np.ones((2, 5), bool)
        >>> outputs = OutputDecoding(num_output_classes=6)(x, nodes, nodes, mask)
        >>> {name: value.shape[-1] for name, value in outputs.items()}
        {'cls': 6, 'charge': 3, 'pt': 1, 'eta': 1, 'sin_phi': 1, 'cos_phi': 1, 'energy': 1}
    """

    def __init__(
        self,
        num_output_classes: int,
        activation: str = "elu",
        regression_use_classification: bool = True,
        dropout: float = 0.0,
        layernorm: bool = True,
        pt_as_correction: bool | str = False,
        energy_as_correction: str = "additive",
        **kwargs: Any,
    ):
        self._head_config = {
            f"{head}_{key}": kwargs.pop(f"{head}_{key}", default)
            for head in HEADS
            for key, default in (("hidden_dim", 128), ("num_layers", 1), ("dim_decrease", True))
        }
        # No cast on entry: the raw X that the heads correct must keep its precision.
        super().__init__(autocast=False, **kwargs)
        if pt_as_correction not in _PT_BIAS:
            raise ValueError(f"pt_as_correction={pt_as_correction!r}, expected True, False or exponential")
        if energy_as_correction not in _ENERGY_BIAS:
            raise ValueError(
                f"energy_as_correction={energy_as_correction!r}, expected one of {', '.join(_ENERGY_BIAS)}"
            )
        self.num_output_classes = num_output_classes
        self.activation = activation
        self.regression_use_classification = regression_use_classification
        self.dropout = dropout
        self.pt_as_correction = pt_as_correction
        self.energy_as_correction = energy_as_correction
        self.layernorm = None
        if layernorm:
            self.layernorm = keras.layers.LayerNormalization(epsilon=1e-6, dtype="float32", name="layernorm")
        self.ffn_id = self._head("id", num_output_classes)
        self.ffn_charge = self._head("charge", NUM_CHARGES)
        self.ffn_pt = self._head(
            "pt", 1 if pt_as_correction == "exponential" else 2, _PT_BIAS[pt_as_correction]
        )
        self.ffn_eta = self._head("eta", 1, (0.0,))
        self.ffn_phi = self._head("phi", 2, (0.0, 0.0))
        self.ffn_energy = self._head("energy", len(bias := _ENERGY_BIAS[energy_as_correction]), bias)

    def _head(self, head: str, d_out: int, output_bias: tuple[float, ...] | None = None) -> FFN:
        config = self._head_config
        return FFN(
            d_out,
            config[f"{head}_hidden_dim"],
            config[f"{head}_num_layers"],
            activation=self.activation,
            dropout=self.dropout,
            dim_decrease=config[f"{head}_dim_decrease"],
            output_bias=output_bias,
            dtype="float32",  # the features of the regression stack are not normalised
            name=f"ffn_{head}",
        )

    def build(self, x_shape, h_id_shape, h_reg_shape, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Create the weights of the heads."""
        logits = self.num_output_classes if self.regression_use_classification else 0
        width_id = h_id_shape[-1]
        width_angles = width_id + logits
        width_momentum = width_angles + h_reg_shape[-1] + logits
        if self.layernorm is not None:
            self.layernorm.build(tuple(h_id_shape))
        for ffn, width in (
            (self.ffn_id, width_id),
            (self.ffn_charge, width_id),
            (self.ffn_eta, width_angles),
            (self.ffn_phi, width_angles),
            (self.ffn_pt, width_momentum),
            (self.ffn_energy, width_momentum),
        ):
            ffn.build((*tuple(h_id_shape)[:-1], width))

    def call(self, x, h_id, h_reg, mask, training=False):
        """Return the outputs.

        Args:
            x: [B, N, F] raw columns.
            h_id: [B, N, D] features of the classification stack.
            h_reg: [B, N, D'] features of the regression stack.
            mask: [B, N] boolean, True = real element.
            training: use dropout.

        Returns:
            ``cls`` [B, N, C] and ``charge`` [B, N, 3] logits, ``pt``, ``eta``, ``sin_phi``, ``cos_phi``,
            ``energy`` [B, N, 1], all float32; zero for padded elements and in place of NaN and Inf.
        """
        real = ops.expand_dims(mask, axis=-1)
        h_id = ops.cast(h_id, "float32")
        h_reg = ops.cast(h_reg, "float32")
        if self.layernorm is not None:
            h_id = from_rows(self.layernorm(to_rows(h_id)), like=h_id)
        cls = self.ffn_id(h_id, training=training) * ops.cast(real, "float32")
        charge = self.ffn_charge(h_id, training=training)
        logits = [ops.stop_gradient(cls)] if self.regression_use_classification else []
        for_angles = ops.concatenate([h_id, *logits], axis=-1)
        for_momentum = ops.concatenate([for_angles, h_reg, *logits], axis=-1)

        d_eta = self.ffn_eta(for_angles, training=training)
        d_sin, d_cos = ops.split(self.ffn_phi(for_angles, training=training), 2, axis=-1)
        outputs = {
            "cls": cls,
            "charge": charge,
            "pt": self._pt(x, self.ffn_pt(for_momentum, training=training)),
            "eta": ops.clip(_column(x, ETA) + d_eta, -MAX_ETA, MAX_ETA),
            "sin_phi": ops.clip(_column(x, SIN_PHI) + d_sin, -1.0, 1.0),
            "cos_phi": ops.clip(_column(x, COS_PHI) + d_cos, -1.0, 1.0),
            "energy": self._energy(x, self.ffn_energy(for_momentum, training=training)),
        }
        return {name: _finite_or_zero(value, real) for name, value in outputs.items()}

    def _pt(self, x, raw):
        if self.pt_as_correction == "exponential":
            return _scaled(_column(x, PT), raw)
        a, b = ops.split(raw, 2, axis=-1)
        return ops.abs(a * _column(x, PT) + b) if self.pt_as_correction else ops.abs(a)

    def _energy(self, x, raw):
        if self.energy_as_correction == "additive":
            return ops.abs(_column(x, ENERGY) + raw)
        if self.energy_as_correction == "exponential":
            return _scaled(_column(x, ENERGY), raw)
        a, b = ops.split(raw, 2, axis=-1)
        return ops.abs(a * _column(x, ENERGY) + b)

    def compute_output_shape(self, x_shape, h_id_shape=None, h_reg_shape=None, mask_shape=None):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return the shape of each output."""
        widths = {"cls": self.num_output_classes, "charge": NUM_CHARGES}
        names = ("cls", "charge", "pt", "eta", "sin_phi", "cos_phi", "energy")
        return {name: (*tuple(x_shape)[:-1], widths.get(name, 1)) for name in names}

    def compute_output_spec(self, x, *args, **kwargs):  # noqa: ARG002 - Keras passes all arguments or their shapes
        """Return the specification of each output: float32 under every policy."""
        shapes = self.compute_output_shape(x.shape)
        return {name: keras.KerasTensor(shape, dtype="float32") for name, shape in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_output_classes": self.num_output_classes,
            "activation": self.activation,
            "regression_use_classification": self.regression_use_classification,
            "dropout": self.dropout,
            "layernorm": self.layernorm is not None,
            "pt_as_correction": self.pt_as_correction,
            "energy_as_correction": self.energy_as_correction,
            **self._head_config,
        }


def _column(x, index: int):
    return x[..., index : index + 1]


def _scaled(measured, log_factor):
    factor = ops.exp(ops.clip(log_factor, -MAX_LOG_FACTOR, MAX_LOG_FACTOR))
    return ops.maximum(measured, SMALLEST_ELEMENT) * factor


def _finite_or_zero(value, real):
    # NaN compares false; comparisons export to ONNX everywhere, isfinite does not.
    keep = ops.logical_and(ops.abs(value) < 3.0e38, real)
    return ops.where(keep, value, ops.zeros_like(value))
