"""What the targets of Delphes events leave out: energy, charge and number of particles by reason."""

import numpy as np
import numpy.typing as npt

from mlpf.data.conversion import Losses
from mlpf.data.delphes.tables import RawDelphes
from mlpf.data.flat_tables import BoolArray, IntArray
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import is_invisible

SOFT = "in towers of a neutral hadron below 9 GeV"
NO_ELEMENT = "on no track and in no tower"
TOWER_CHARGE = "in towers of another charge"
_STABLE = 1


def counted_particles(raw: RawDelphes) -> BoolArray:
    """Return [P] True for the particles of targets and losses: stable, visible, of finite energy.

    If a file does not have the status, all its particles are stable.
    """
    particles = raw.particles
    counted = ~is_invisible(particles["pdg"]) & np.isfinite(particles["energy"])
    if "status" in particles.columns:
        counted &= particles["status"] == _STABLE
    return counted


def lost_particles(
    raw: RawDelphes,
    has_track: BoolArray,
    tower_of: IntArray,
    soft: BoolArray,
    tower_targets: npt.NDArray[np.float64],
) -> Losses:
    """Sum the losses, which are on no target.

    Sum of the counted particles = sum of the targets + sum of the losses, in energy and in charge.

    Args:
        raw: a chunk of E events with P particles and N towers.
        has_track: [P] True if a particle is the target of a track.
        tower_of: [P] tower whose target contains the particle, -1 = none.
        soft: [N] True if a tower has no target because it was a soft neutral hadron.
        tower_targets: [N, 7] ``PARTICLE_COLUMNS``.

    Returns:
        Reason -> energy in GeV, charge in e and number of particles, [E] float64 each. A tower has the charge
        of one particle at most, and none beyond the tracker. The missing charge is lost, though the energy of
        these particles is on the tower.
    """
    counted = counted_particles(raw)
    event = raw.particles.event
    in_tower = tower_of >= 0
    in_soft = np.zeros(len(in_tower), dtype=bool)
    in_soft[in_tower] = soft[tower_of[in_tower]]
    charge = raw.particles["charge"].astype(np.float64)
    values = {
        "energy": raw.particles["energy"].astype(np.float64),
        "charge": charge,
        "particles": np.ones(len(event)),
    }

    def per_event(rows: BoolArray, value: npt.NDArray) -> npt.NDArray[np.float64]:
        return np.bincount(event[rows], value[rows], minlength=len(raw)).astype(np.float64)

    losses = {
        reason: {name: per_event(counted & of_reason, value) for name, value in values.items()}
        for reason, of_reason in ((SOFT, in_soft), (NO_ELEMENT, ~has_track & ~in_tower))
    }
    on_towers = np.bincount(
        raw.towers.event, tower_targets[:, PARTICLE_COLUMNS.index("charge")], minlength=len(raw)
    )
    losses[TOWER_CHARGE] = {"charge": per_event(counted & in_tower & ~in_soft, charge) - on_towers}
    return losses
