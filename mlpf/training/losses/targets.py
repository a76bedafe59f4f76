"""Split padded target rows into named targets and masks. For tensors of any backend and numpy arrays."""

from typing import Any

from keras import ops

from mlpf.physics.features import TARGETS, TRACK_FEATURES

ELEMTYPE = TRACK_FEATURES.index("elemtype")  # the same column for tracks and clusters
ELEMENT_PT = TRACK_FEATURES.index("pt")  # pt of a track, et of a cluster

REGRESSION_NAMES = ("pt", "eta", "sin_phi", "cos_phi", "energy")
CHARGES = (-1, 0, 1)


def element_mask(X: Any) -> Any:
    """Return [B, N] bool, True = real element. ``X``: [B, N, F]."""
    return ops.not_equal(X[..., ELEMTYPE], 0)


def element_pt(X: Any) -> Any:
    """Return the measured transverse momentum of each element, [B, N] in GeV, never negative."""
    return ops.relu(X[..., ELEMENT_PT])


def particle_mask(X: Any, y: Any) -> Any:
    """Return [B, N] bool, True = real element that carries a particle."""
    return ops.logical_and(element_mask(X), ops.not_equal(y[..., TARGETS.index("cls")], 0))


def jet_index(X: Any, y: Any) -> Any:
    """Return the rank of the jet of each element, [B, N] int32; 0 = in no jet, no particle, or padding."""
    rank = ops.cast(ops.round(y[..., TARGETS.index("jet_idx")]), "int32")
    return ops.where(particle_mask(X, y), ops.maximum(rank, 0), 0)


def split_targets(y: Any) -> dict[str, Any]:
    """Name the columns of the targets.

    Args:
        y: [B, N, 8] float32, columns ``TARGETS``.

    Returns:
        ``cls`` [B, N] int32 class index; ``charge`` [B, N] int32 place in ``CHARGES`` (charges
        beyond ±1 count as ±1); ``pt``, ``eta``, ``sin_phi``, ``cos_phi``, ``energy`` [B, N, 1]
        float32 in GeV, zero where the element carries no particle.
    """
    cls = ops.cast(y[..., TARGETS.index("cls")], "int32")
    charge = ops.clip(y[..., TARGETS.index("charge")], CHARGES[0], CHARGES[-1])
    has_particle = ops.expand_dims(ops.cast(ops.not_equal(cls, 0), "float32"), -1)
    targets = {"cls": cls, "charge": ops.cast(ops.round(charge), "int32") - CHARGES[0]}
    for name in REGRESSION_NAMES:
        column = TARGETS.index(name)
        targets[name] = ops.cast(y[..., column : column + 1], "float32") * has_particle
    return targets
