"""Delphes events: energy and charge of what collisions leave = on targets + in the account of losses."""

import numpy as np
import pytest

from mlpf.data.delphes.losses import NO_ELEMENT, SOFT, TOWER_CHARGE, counted_particles
from mlpf.data.delphes.truth import prepare_chunk
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import is_invisible
from mlpf.physics.schemas import SCHEMAS
from mlpf.simulation.delphes.generator import DelphesGenerator
from mlpf.simulation.delphes.simulate import simulate_event
from mlpf.simulation.delphes.writer import DelphesProvenance, write_events
from tests.support.conversions import converted, read_delphes
from tests.support.proton_collisions import FakeGenerator

SCHEMA = SCHEMAS["delphes"]
NUM_EVENTS = 3
CLOSES = 1e-3


def fake_collisions():
    return FakeGenerator(3000, seed=2)


def top_pairs():
    return DelphesGenerator("delphes_ttbar", seed=3, pileup=5.0, pool_size=20)


@pytest.fixture(scope="module", params=[fake_collisions, pytest.param(top_pairs, marks=pytest.mark.slow)])
def path(request, tmp_path_factory):
    generator = request.param()
    path = tmp_path_factory.mktemp("closure") / "events.root"
    events = [simulate_event(generator, number) for number in range(NUM_EVENTS)]
    write_events(path, events, DelphesProvenance(generator.sample, generator.seed, 0, NUM_EVENTS, 5.0))
    return path


def on_targets(events, name):
    """Return [E] the sum of one column over the targets."""
    total = np.zeros(len(events))
    for kind in SCHEMA.kinds:
        table = events[kind.name]
        values = table["ygen"][:, PARTICLE_COLUMNS.index(name)].astype(np.float64)
        total += np.bincount(table.event, values, len(events))
    return total


def generated(raw, name):
    """Return [E] the sum over what collisions leave."""
    visible = ~is_invisible(raw.particles["pdg"])
    assert (counted_particles(raw) == visible).all()  # the simulation writes stable particles only
    values = raw.particles[name].astype(np.float64)
    return np.bincount(raw.particles.event[visible], values[visible], len(raw))


@pytest.mark.parametrize("name", ["energy", "charge"])
def test_targets_and_losses_close_in_every_event(path, name):
    for raw in read_delphes(path):
        chunk = prepare_chunk(raw)
        lost = sum(quantities.get(name, 0.0) for quantities in chunk.losses.values())
        found = on_targets(chunk.events, name) + lost
        np.testing.assert_allclose(found, generated(raw, name), rtol=CLOSES, atol=CLOSES)


def test_every_kind_of_loss_is_met(path):
    for raw in read_delphes(path):
        losses = prepare_chunk(raw).losses
        for reason in (SOFT, NO_ELEMENT):
            assert (losses[reason]["energy"] > 1.0).all()
            assert (losses[reason]["particles"] > 10).all()
        # Were it not counted, the charge would not close.
        assert (losses[TOWER_CHARGE]["charge"] != 0).any()


def test_the_description_of_a_file_says_the_same(path):
    events = converted(path)
    assert len(events) == NUM_EVENTS
    (raw,) = read_delphes(path)
    for name in ("energy", "charge"):
        lost = sum(quantities.get(name, 0.0) for quantities in events.metadata["lost"].values())
        total = generated(raw, name).sum()
        assert on_targets(events, name).sum() + lost == pytest.approx(total, rel=CLOSES, abs=CLOSES)
