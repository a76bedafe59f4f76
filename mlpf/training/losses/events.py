"""Losses of whole events: they compare the true particles of an event with the predicted ones.

Each loss has one value per event, with weight 1 if the event has something to compare, else 0. Sums of values
and weights can be added over batches, replicas and ranks. Roots are taken per event.

A predicted particle is weighted by the sharpened probability that its element has one (``particle_weight``).
This is close to the decision of the evaluation and gives the classes a gradient. The forms follow the
reference MLPF v1.6, which takes roots over a whole batch instead; see docs/training.md.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from mlpf.config.loss_schema import EventLossConfig
from mlpf.training.losses.regression import build_regression
from mlpf.training.losses.targets import REGRESSION_NAMES, Targets

# Factor of the logits. At 10 the weight is close to the decision of the largest logit, as published.
SHARPNESS = 10.0
# Coordinates of a particle for the sliced Wasserstein distance.
COORDINATES = ("pt", "energy", "eta", "sin_phi", "cos_phi")
# Position of padding on every direction: behind all particles, on both sides.
_FAR = 1e30
# The root of a square below this is 0 with gradient 0, since the root of 0 has no gradient.
_SMALLEST_SQUARE = 1e-20


@dataclass(frozen=True)
class Particles:
    """One particle per element.

    Attributes:
        pt, energy: [B, N] float32, GeV.
        eta, sin_phi, cos_phi: [B, N] float32.
        weight: [B, N] float32, from 0 (no particle) to 1.
    """

    pt: Any
    energy: Any
    eta: Any
    sin_phi: Any
    cos_phi: Any
    weight: Any

    @property
    def transverse(self) -> Any:
        """[B, N, 2] weighted px and py in GeV. Computed without the azimuth, which has no gradient at 0."""
        pt = self.weight * self.pt
        return ops.stack([pt * self.cos_phi, pt * self.sin_phi], axis=-1)


@dataclass(frozen=True)
class EventPair:
    """True and predicted particles of B events.

    Attributes:
        gen: true particles.
        pred: predicted particles.
        elements: [B, N] bool, True = real element.
        jets: [B, N] int32, rank of the true jet of each element, 0 = no jet.
    """

    gen: Particles
    pred: Particles
    elements: Any
    jets: Any

    @property
    def occupied(self) -> Any:
        """[B] float32, 1 = the event has a true particle."""
        return ops.cast(ops.any(self.gen.weight > 0, axis=1), "float32")

    @cached_property
    def jet_pt(self) -> tuple[Any, Any, Any]:
        """True and predicted pt of the true jets, [B, N + 1] in GeV, and whether each jet exists, 0 or 1.

        Ranks are below N + 1, since every jet contains an element.
        """
        num_events, num_elements = ops.shape(self.jets)[0], ops.shape(self.jets)[1]
        slots = num_elements + 1
        jets = ops.where(self.jets <= num_elements, self.jets, 0)
        segments = ops.reshape(ops.expand_dims(ops.arange(num_events) * slots, -1) + jets, (-1,))
        columns = [*(ops.reshape(p.transverse, (-1, 2)) for p in (self.gen, self.pred))]
        sums = ops.segment_sum(ops.concatenate(columns, axis=-1), segments, num_events * slots)
        sums = ops.reshape(sums, (num_events, slots, 4))
        gen, pred = magnitude(sums[..., :2]), magnitude(sums[..., 2:])
        return gen, pred, ops.cast(gen > 0, "float32") * ops.cast(ops.arange(slots) > 0, "float32")


def particle_weight(logits: Any) -> Any:
    """Return 1 - softmax(10 x logits) of class 0, [B, N] float32. ``logits``: [B, N, C]."""
    sharp = SHARPNESS * ops.cast(logits, "float32")
    # Equal to 1 - softmax, without the rounding error of a difference of nearly equal numbers.
    return ops.sigmoid(ops.logsumexp(sharp[..., 1:], axis=-1) - sharp[..., 0])


def pair_events(targets: Targets, outputs: dict[str, Any]) -> EventPair:
    """Put targets and outputs of a batch side by side.

    Args:
        targets: of the batch.
        outputs: dict of the model's outputs.
    """
    gen = {name: targets.kinematics[name][..., 0] for name in REGRESSION_NAMES}
    pred = {name: ops.cast(outputs[name], "float32")[..., 0] for name in REGRESSION_NAMES}
    weight = particle_weight(outputs["cls"]) * ops.cast(targets.elements, "float32")
    return EventPair(
        gen=Particles(**gen, weight=ops.cast(targets.particles, "float32")),
        pred=Particles(**pred, weight=weight),
        elements=targets.elements,
        jets=targets.jets,
    )


def root(square: Any) -> Any:
    """Return the square root, with gradient 0 where it is 0."""
    positive = square > _SMALLEST_SQUARE
    return ops.where(positive, ops.sqrt(ops.where(positive, square, 1.0)), 0.0)


def magnitude(vectors: Any) -> Any:
    """Return the length of vectors [..., d], with gradient 0 where it is 0."""
    return root(ops.sum(ops.square(vectors), axis=-1))


def missing_momentum(particles: Particles) -> Any:
    """Return the missing transverse momentum |sum of pt vectors|, [B] in GeV."""
    return magnitude(ops.sum(particles.transverse, axis=1))


def sliced_wasserstein(events: EventPair, directions: Any) -> Any:
    """Return the sliced 2-Wasserstein distance between true and predicted particles.

    W = sqrt(mean over directions d and places i of (sort(g . d)_i - sort(p . d)_i)^2), with g and p the
    vectors of ``COORDINATES``; an element without a particle is at the origin, padding takes no part
    (Rabin et al., SSVM 2011; Bonneel et al., J. Math. Imaging Vis. 51, 2015).

    Args:
        events: true and predicted particles.
        directions: [5, P] unit vectors, float32.

    Returns:
        [B] float32.
    """
    place = ops.expand_dims(events.elements, 1)

    def project(particles: Particles) -> Any:
        points = ops.stack([getattr(particles, name) * particles.weight for name in COORDINATES], axis=-1)
        projected = ops.transpose(ops.matmul(points, directions), (0, 2, 1))
        return ops.sort(ops.where(place, projected, _FAR), axis=-1)

    squares = ops.sum(ops.square(project(events.gen) - project(events.pred)), axis=(1, 2))
    num_elements = ops.sum(ops.cast(events.elements, "float32"), axis=1)
    return root(squares / (ops.maximum(num_elements, 1.0) * ops.shape(directions)[1]))


def unit_directions(normal: Any) -> Any:
    """Return the columns of normal numbers [5, P] on the unit sphere, where they are uniform."""
    return normal / ops.maximum(ops.sqrt(ops.sum(ops.square(normal), axis=0, keepdims=True)), 1e-6)


def momentum_cells(particles: Particles, num_eta_bins: int, num_phi_bins: int, max_eta: float) -> Any:
    """Return |sum of pt vectors| in cells of eta and phi, [B, num_eta_bins, num_phi_bins] in GeV.

    A particle is shared linearly between the nearest cell centres, so that its position has a gradient.
    Beyond the outermost centre in eta it belongs to the outermost cell. phi is periodic.

    Args:
        particles: [B, N].
        num_eta_bins: cells from -max_eta to max_eta.
        num_phi_bins: cells around the circle.
        max_eta: see above.
    """
    d_eta, d_phi = 2 * max_eta / num_eta_bins, 2 * math.pi / num_phi_bins
    eta_centres = (np.arange(num_eta_bins) + 0.5) * d_eta - max_eta
    phi_centres = (np.arange(num_phi_bins) + 0.5) * d_phi - math.pi
    eta = ops.clip(particles.eta, eta_centres[0], eta_centres[-1])
    from_eta = ops.abs(ops.expand_dims(eta, -1) - eta_centres.astype("float32"))
    apart = ops.abs(ops.expand_dims(_azimuth(particles), -1) - phi_centres.astype("float32"))
    from_phi = ops.minimum(apart, 2 * math.pi - apart)
    share_eta, share_phi = ops.relu(1 - from_eta / d_eta), ops.relu(1 - from_phi / d_phi)
    px, py = ops.split(particles.transverse, 2, axis=-1)
    # [B, cells in eta, N] x [B, N, 2 cells in phi]
    sums = ops.matmul(
        ops.transpose(share_eta, (0, 2, 1)), ops.concatenate([share_phi * px, share_phi * py], -1)
    )
    return magnitude(ops.stack(ops.split(sums, 2, axis=-1), axis=-1))


def _azimuth(particles: Particles) -> Any:
    """Return phi [B, N] in [-pi, pi]; 0 with gradient 0 where sine and cosine are both 0."""
    defined = ops.square(particles.sin_phi) + ops.square(particles.cos_phi) > _SMALLEST_SQUARE
    cos_phi = ops.where(defined, particles.cos_phi, 1.0)
    return ops.arctan2(ops.where(defined, particles.sin_phi, 0.0), cos_phi)


class EventLosses:
    """The event losses with a coefficient above 0.

    Args:
        config: section ``loss.event_loss``.
        seed: seed of the directions of the sliced Wasserstein distance.

    Attributes:
        term_names: losses with a coefficient above 0.
        random_states: generator state of the directions, if there are any; part of a checkpoint.
    """

    def __init__(self, config: EventLossConfig, seed: int = 0):
        self._config = config
        self.term_names = tuple(name for name, coef in config.coefficients.items() if coef > 0)
        self.random_states: list[keras.Variable] = []
        if "sliced_wasserstein" in self.term_names:
            self._generator = keras.random.SeedGenerator(seed, name="sliced_wasserstein")
            self.random_states.append(self._generator.state)
            shape = (len(COORDINATES), config.sliced_wasserstein.num_projections)
            fixed = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
            self._fixed_directions = fixed / np.linalg.norm(fixed, axis=0)
        self._met = build_regression(config.met)
        self._log_cosh = keras.losses.LogCosh(reduction="none", dtype="float32")

    def sums(self, targets: Targets, outputs: dict[str, Any], training: bool) -> list[tuple[Any, Any]]:
        """Return (sum of values, sum of weights) of each of ``term_names``, scalars.

        Args:
            targets: of the batch.
            outputs: dict of the model's outputs.
            training: draw new directions; otherwise the directions are fixed, so that epochs can be compared.
        """
        if not self.term_names:
            return []
        events = pair_events(targets, outputs)
        found = []
        for name in self.term_names:
            values, weights = self._term(name, events, training)
            found.append((ops.sum(values * weights), ops.sum(weights)))
        return found

    def _term(self, name: str, events: EventPair, training: bool) -> tuple[Any, Any]:
        """Return the value of each event and its weight, [B]."""
        if name == "sliced_wasserstein":
            return sliced_wasserstein(events, self._directions(training)), events.occupied
        if name == "hist_2d":
            return self._cells(events), events.occupied
        if name == "met":
            gen, pred = (ops.expand_dims(missing_momentum(p), -1) for p in (events.gen, events.pred))
            return self._met(gen, pred), events.occupied
        gen, pred, exists = events.jet_pt
        num_jets = ops.sum(exists, axis=1)
        if name == "gen_jet_mse":
            loss = ops.square(pred - gen)
        else:
            loss = self._log_cosh(ops.expand_dims(gen, -1), ops.expand_dims(pred, -1))
        mean = ops.sum(loss * exists, axis=1) / ops.maximum(num_jets, 1.0)
        return root(mean) if name == "gen_jet_mse" else mean, ops.cast(num_jets > 0, "float32")

    def _directions(self, training: bool) -> Any:
        if not training:
            return ops.convert_to_tensor(self._fixed_directions)
        shape = self._fixed_directions.shape
        return unit_directions(keras.random.normal(shape, dtype="float32", seed=self._generator))

    def _cells(self, events: EventPair) -> Any:
        """Return the root mean squared difference of the momentum over all cells, [B] in GeV."""
        config = self._config.hist_2d
        cells = [
            momentum_cells(p, config.num_eta_bins, config.num_phi_bins, config.max_eta)
            for p in (events.gen, events.pred)
        ]
        return root(ops.mean(ops.square(cells[1] - cells[0]), axis=(1, 2)))
