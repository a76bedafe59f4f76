"""The loss: class, charge, regression and event terms.

Class and charge terms are means over real elements. Regression terms are means over elements with a true
particle. Event terms are means over events with something to compare. Padding and empty events do not count.
Sums are in float32.
"""

from dataclasses import dataclass
from typing import Any

from keras import ops

from mlpf.config.loss_schema import LossConfig, WeightByPt
from mlpf.models.interface import element_mask
from mlpf.training.losses.events import EventLosses
from mlpf.training.losses.regression import build_regression, log_ratio
from mlpf.training.losses.targets import CHARGES, REGRESSION_NAMES, Targets, element_pt, split_targets


@dataclass(frozen=True)
class LossSums:
    """Weighted sums of the loss terms. Sums of several batches or replicas can be added.

    Attributes:
        values: [T] sum of weight x loss over elements, terms in the order ``MLPFLoss.term_names``.
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
    """Return the softmax cross-entropy of the charge, [B, N]. ``charge``: [B, N] int index in ``CHARGES``."""
    target = ops.one_hot(charge, len(CHARGES), dtype="float32")
    return ops.categorical_crossentropy(target, ops.cast(logits, "float32"), from_logits=True)


class MLPFLoss:
    """All terms of the loss with a coefficient above 0.

    Build it in the scope of the distribution, because random states are variables.

    Args:
        config: section ``loss``.
        seed: seed of random numbers in the terms.

    Attributes:
        term_names: names of the terms, in the order of sums.
        random_states: states of random generators; part of a checkpoint. Training steps advance them equally
            on all replicas and ranks.
    """

    def __init__(self, config: LossConfig, seed: int = 0):
        self.term_names = config.term_names
        self._config = config
        self._coefficients = [config.coefficients[name] for name in self.term_names]
        self._regression = {
            name: build_regression(getattr(config, f"{name}_loss"))
            for name in REGRESSION_NAMES
            if name in self.term_names
        }
        self._events = EventLosses(config.event_loss, seed)
        self.random_states = self._events.random_states

    def sums(self, X: Any, y: Any, outputs: dict[str, Any], training: bool = False) -> LossSums:
        """Return the sums of a batch.

        Args:
            X: [B, N, F] model input.
            y: [B, N, 8] targets.
            outputs: dict of the model's outputs; those that no term uses may be missing.
            training: draw new random numbers.
        """
        targets = split_targets(element_mask(X), y)
        found = self._element_sums(X, targets, outputs) + self._events.sums(targets, outputs, training)
        values, weights = zip(*found, strict=True)
        return LossSums(values=ops.stack(values), weights=ops.stack(weights))

    def _element_sums(self, X: Any, targets: Targets, outputs: dict[str, Any]) -> list[tuple[Any, Any]]:
        """Return (sum of weight x loss, sum of weights) of each term about elements."""
        config = self._config
        elements = ops.cast(targets.elements, "float32") * _pt_weight(X, config.cls_weight_by_pt)
        particles = ops.cast(targets.particles, "float32") * _pt_weight(X, config.reg_weight_by_pt)
        found = []
        for name in self.term_names:
            if name in self._regression:
                true = targets.kinematics[name]
                weight, loss = particles, self._regression_loss(name, true, outputs[name])
            elif name == "cls":
                focal = config.cls_loss
                weight, loss = elements, focal_loss(targets.cls, outputs[name], focal.gamma, focal.alpha)
            elif name == "charge":
                weight, loss = elements, charge_loss(targets.charge, outputs[name])
            else:
                continue
            found.append((ops.sum(loss * weight), ops.sum(weight)))
        return found

    def _regression_loss(self, name: str, true: Any, predicted: Any) -> Any:
        """Return the loss of each element, [B, N]; ``true`` and ``predicted`` are [B, N, 1]."""
        form = {"pt": self._config.pt_target, "energy": self._config.energy_target}.get(name, "value")
        if form == "log_ratio":
            ratio = log_ratio(predicted, true)
            return self._regression[name](ops.zeros_like(ratio), ratio)
        return self._regression[name](true, predicted)

    def total(self, values: Any, weights: Any) -> Any:
        """Return the loss, a scalar: sum over terms of coefficient x value / weight (0 where weight is 0)."""
        coefficients = ops.convert_to_tensor(self._coefficients, "float32")
        return ops.sum(coefficients * ops.divide_no_nan(values, weights))

    def components(self, values: Any, weights: Any) -> dict[str, float]:
        """Return ``loss`` and, without coefficients, ``<term>_loss`` of each term as numbers."""
        means = ops.convert_to_numpy(ops.divide_no_nan(values, weights))
        total = float(ops.convert_to_numpy(self.total(values, weights)))
        return {"loss": total} | {f"{n}_loss": float(m) for n, m in zip(self.term_names, means, strict=True)}


def _pt_weight(X: Any, by_pt: WeightByPt) -> Any:
    """Return 1, or the measured pt of each element [B, N] in GeV, or its root."""
    if not by_pt:
        return 1.0
    pt = ops.cast(element_pt(X), "float32")
    return ops.sqrt(pt) if by_pt == "sqrt" else pt
