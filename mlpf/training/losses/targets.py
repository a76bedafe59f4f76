"""Split padded target rows into named targets and masks. For tensors of any backend and numpy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from mlpf.physics.features import TARGETS, TRACK_FEATURES

ELEMENT_PT = TRACK_FEATURES.index("pt")  # pt of a track, et of a cluster

REGRESSION_NAMES = ("pt", "eta", "sin_phi", "cos_phi", "energy")
CHARGES = (-1, 0, 1)


def element_pt(X: Any) -> Any:
    """Return the measured transverse momentum of each element, [B, N] in GeV, never negative."""
    return ops.relu(X[..., ELEMENT_PT])


@dataclass(frozen=True)
class Targets:
    """Targets of a batch by name, and which of its elements there are: made once, all terms look at it.

    Attributes:
        elements: [B, N] bool, True = real element.
        particles: [B, N] bool, True = real element that carries a particle.
        cls: [B, N] int32 class index.
        charge: [B, N] int32 place in ``CHARGES`` (charges beyond ±1 count as ±1).
        kinematics: each of ``REGRESSION_NAMES`` [B, N, 1] float32 (pt and energy in GeV), zero where the
            element carries no particle.
        jets: [B, N] int32 rank of the jet of each element; 0 = in no jet, no particle, or padding.
    """

    elements: Any
    particles: Any
    cls: Any
    charge: Any
    kinematics: Mapping[str, Any]
    jets: Any


def split_targets(elements: Any, y: Any) -> Targets:
    """Name the columns of the targets.

    Args:
        elements: [B, N] bool, True = real element; see ``element_mask``.
        y: [B, N, 8] float32, columns ``TARGETS``.
    """
    cls = ops.cast(y[..., TARGETS.index("cls")], "int32")
    has_particle = ops.not_equal(cls, 0)
    charge = ops.clip(y[..., TARGETS.index("charge")], CHARGES[0], CHARGES[-1])
    factor = ops.expand_dims(ops.cast(has_particle, "float32"), -1)
    columns = {name: TARGETS.index(name) for name in REGRESSION_NAMES}
    particles = ops.logical_and(elements, has_particle)
    rank = ops.cast(ops.round(y[..., TARGETS.index("jet_idx")]), "int32")
    return Targets(
        elements=elements,
        particles=particles,
        cls=cls,
        charge=ops.cast(ops.round(charge), "int32") - CHARGES[0],
        kinematics={name: ops.cast(y[..., i : i + 1], "float32") * factor for name, i in columns.items()},
        jets=ops.where(particles, ops.maximum(rank, 0), 0),
    )
