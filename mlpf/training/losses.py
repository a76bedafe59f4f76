"""The loss: class, charge and regression terms, each normalised by what it is about.

Class and charge terms are means over real elements, regression terms means over elements that
carry a true particle; padding and empty events change nothing. Sums run in float32.
"""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from mlpf.config.loss_schema import LossConfig, RegressionLossConfig
from mlpf.data.targets import (
    CHARGES,
    REGRESSION_NAMES,
    element_mask,
    element_pt,
    particle_mask,
    split_targets,
)

TERM_NAMES = ("cls", "charge", *REGRESSION_NAMES)


@dataclass(frozen=True)
class LossSums:
    """Weighted sums of the terms; those of several batches or replicas add up.

    Attributes:
        values: [T] sum of weight x loss over elements, terms in the order ``TERM_NAMES``.
        weights: [T] sum of weights.
    """

    values: Any
    weights: Any


def focal_loss(cls: Any, logits: Any, gamma: float, alpha: float) -> Any:
    """Sigmoid focal loss of each element, summed over classes.

    Lin et al., arXiv:1708.02002, eq. 5: sum_c alpha_t (1 - p_t)^gamma (-log p_t), one class against all.

    Args:
        cls: [B, N] int, true class.
        logits: [B, N, C].
        gamma: focusing exponent.
        alpha: weight of the true class; 1 - alpha is that of the others.

    Returns:
        [B, N] float32.
    """
    logits = ops.cast(logits, "float32")
    target = ops.one_hot(cls, ops.shape(logits)[-1], dtype="float32")
    toward = ops.where(target > 0, logits, -logits)  # p_t = sigmoid(toward)
    cross_entropy = ops.softplus(-toward)
    alpha_t = ops.where(target > 0, alpha, 1 - alpha)
    # gamma = 0 would give 0^0 gradients where 1 - p_t vanishes.
    focus = ops.power(ops.sigmoid(-toward), gamma) if gamma > 0 else 1.0
    return ops.sum(alpha_t * focus * cross_entropy, axis=-1)


def charge_loss(charge: Any, logits: Any) -> Any:
    """Softmax cross-entropy of the charge. ``charge``: [B, N] int place in ``CHARGES``; returns [B, N]."""
    target = ops.one_hot(charge, len(CHARGES), dtype="float32")
    return ops.categorical_crossentropy(target, ops.cast(logits, "float32"), from_logits=True)


def _build_regression(config: RegressionLossConfig) -> keras.losses.Loss:
    """Return the Keras loss that keeps one value per element, in float32."""
    options = {} if config.delta is None else {"delta": config.delta}
    loss_class = getattr(keras.losses, config.type)
    return loss_class(reduction="none", dtype="float32", **options)


class MLPFLoss:
    """All terms of the loss as one configuration section describes them.

    Args:
        config: section ``loss``.
    """

    def __init__(self, config: LossConfig):
        self._config = config
        self._regression = {
            name: _build_regression(getattr(config, f"{name}_loss")) for name in REGRESSION_NAMES
        }
        self._coefficients = [
            config.classification_loss_coef,
            *(getattr(config, f"{name}_loss_coef") for name in TERM_NAMES[1:]),
        ]

    def sums(self, X: Any, y: Any, outputs: dict[str, Any]) -> LossSums:
        """Return the sums of a batch.

        Args:
            X: [B, N, F] model input.
            y: [B, N, 8] targets.
            outputs: dict of the model's outputs.
        """
        targets = split_targets(y)
        elements = ops.cast(element_mask(X), "float32")
        particles = ops.cast(particle_mask(X, y), "float32")
        pt = ops.cast(element_pt(X), "float32")
        if self._config.cls_weight_by_pt:
            elements = elements * pt
        if self._config.reg_weight_by_pt:
            particles = particles * pt
        focal = self._config.cls_loss
        losses = [
            focal_loss(targets["cls"], outputs["cls"], focal.gamma, focal.alpha),
            charge_loss(targets["charge"], outputs["charge"]),
            *(self._regression[name](targets[name], outputs[name]) for name in REGRESSION_NAMES),
        ]
        masks = [elements] * 2 + [particles] * len(REGRESSION_NAMES)
        return LossSums(
            values=ops.stack([ops.sum(loss * mask) for loss, mask in zip(losses, masks, strict=True)]),
            weights=ops.stack([ops.sum(mask) for mask in masks]),
        )

    def total(self, values: Any, weights: Any) -> Any:
        """Return the loss, a scalar: sum over terms of coefficient x value / weight (0 where weight is 0)."""
        coefficients = ops.convert_to_tensor(self._coefficients, "float32")
        return ops.sum(coefficients * ops.divide_no_nan(values, weights))

    def components(self, values: Any, weights: Any) -> dict[str, float]:
        """Return ``loss`` and, without coefficients, ``<term>_loss`` of each term as numbers."""
        means = ops.convert_to_numpy(ops.divide_no_nan(values, weights))
        total = float(ops.convert_to_numpy(self.total(values, weights)))
        return {"loss": total} | {f"{n}_loss": float(m) for n, m in zip(TERM_NAMES, means, strict=True)}
