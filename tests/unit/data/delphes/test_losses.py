import awkward as ak
import numpy as np
import pytest

from mlpf.data.delphes.losses import NO_ELEMENT, SOFT, TOWER_CHARGE, counted_particles
from mlpf.data.delphes.truth import prepare_chunk
from tests.support.delphes_files import PARTICLE, HandDelphes, MemoryLeaf, memory_tree, read_memory


def read(*events, status=None):
    tree = memory_tree(events)
    if status is not None:
        tree["PileUpMix.Status"] = MemoryLeaf(status)
    return read_memory(tree, len(events))


def losses_of(*events, **options):
    return prepare_chunk(read(*events, **options)).losses


def test_nothing_is_lost_where_every_particle_has_its_element():
    event = HandDelphes()
    event.track(event.particle(211, 1, 5.0))
    event.tower([event.particle(22, 0, 5.0)])
    for quantities in losses_of(event).values():
        assert all(values.tolist() == [0.0] for values in quantities.values())


def test_particles_on_no_element_are_summed_for_each_event():
    first, second = HandDelphes(), HandDelphes()
    first.track(first.particle(211, 1, 5.0))
    first.particle(-211, -1, 3.0)
    first.particle(22, 0, 4.0)
    first.particle(12, 0, 100.0)  # invisible
    second.particle(321, 1, 7.0)
    lost = losses_of(first, second)[NO_ELEMENT]
    assert lost["energy"].tolist() == [7.0, 7.0]
    assert lost["charge"].tolist() == [-1.0, 1.0]
    assert lost["particles"].tolist() == [2.0, 1.0]


def test_soft_towers_lose_all_their_particles():
    event = HandDelphes()
    event.tower([event.particle(130, 0, 4.0), event.particle(-211, -1, 3.0), event.particle(14, 0, 50.0)])
    event.tower([event.particle(130, 0, 40.0)])
    lost = losses_of(event)[SOFT]
    assert {name: values.tolist() for name, values in lost.items()} == {
        "energy": [7.0],
        "charge": [-1.0],
        "particles": [2.0],
    }


@pytest.mark.parametrize(
    ("particles", "charge"),
    [
        ([(211, 1, 5.0), (211, 1, 4.0)], 1.0),  # the charge of the leading one is on the tower
        ([(22, 0, 5.0), (-211, -1, 4.0)], -1.0),
        ([(211, 1, 50.0, 3.0)], 1.0),  # neutral beyond the tracker
        ([(211, 1, 5.0)], 0.0),
    ],
)
def test_charge_that_a_tower_cannot_carry_is_lost(particles, charge):
    event = HandDelphes()
    event.tower([event.particle(*particle) for particle in particles])
    losses = losses_of(event)
    assert losses[TOWER_CHARGE]["charge"].tolist() == [charge]
    assert losses[SOFT]["energy"].tolist() == losses[NO_ELEMENT]["energy"].tolist() == [0.0]


def test_only_stable_particles_count_where_the_file_says_which_are():
    event = HandDelphes()
    for energy in (80.0, 3.0):
        event.particle(24, 1, energy)
    assert "Status" not in PARTICLE
    assert losses_of(event)[NO_ELEMENT]["energy"].tolist() == [83.0]
    assert losses_of(event, status=ak.Array([[2, 1]]))[NO_ELEMENT]["energy"].tolist() == [3.0]


def test_what_has_no_finite_energy_does_not_count():
    event = HandDelphes()
    event.particle(22, 0, 1.0, energy=np.nan)
    event.particle(22, 0, 1.0)
    assert counted_particles(read(event)).tolist() == [False, True]
    assert losses_of(event)[NO_ELEMENT]["energy"].tolist() == [1.0]
