import numpy as np

from mlpf.data.dataset.examples import jet_ranks
from mlpf.physics.features import PARTICLE_COLUMNS


def rows(*particles):
    """Rows of (cls, pt, eta, phi, energy)."""
    out = [(kind, 0.0, pt, eta, np.sin(phi), np.cos(phi), energy) for kind, pt, eta, phi, energy in particles]
    return np.array(out, dtype=np.float32).reshape(-1, len(PARTICLE_COLUMNS))


def test_jets_are_numbered_by_falling_pt_and_elements_without_particle_have_none():
    targets = rows(
        (0, 0.0, 0.0, 0.0, 0.0),  # nothing here: numbering must not shift
        (1, 10.0, 0.0, 0.0, 10.0),
        (3, 30.0, 0.0, 3.0, 30.0),
        (3, 5.0, 0.0, 0.05, 5.0),
        (2, 1.0, 3.0, 1.5, 10.1),  # a jet below 5 GeV is none
    )
    assert jet_ranks(np.array([5]), targets).tolist() == [0, 2, 1, 2, 0]
    both = np.concatenate([targets, targets[2:4]])  # a second event, whose ranks start again
    assert jet_ranks(np.array([5, 0, 2]), both).tolist() == [0, 2, 1, 2, 0, 1, 2]


def test_events_without_particles_have_no_jets():
    assert jet_ranks(np.array([1]), rows((0, 0, 0, 0, 0))).tolist() == [0]
    assert jet_ranks(np.array([0, 0]), rows()).tolist() == []
