"""Nothing gets lost uncounted: energy and charge of the generator are on targets or in the account."""

import numpy as np
import pytest

from mlpf.data.edm4hep.conversion import prepare_chunk
from mlpf.data.edm4hep.truth import elements_of, gen_targets, link_truth
from mlpf.data.events import Events
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.samples import CLIC_SAMPLES
from mlpf.physics.schemas import SCHEMAS
from mlpf.workflows import simulate
from tests.support.conversions import ELEMENTS, assert_same_events, converted, read_edm4hep
from tests.support.edm4hep_files import HandEvent
from tests.support.raw_events import raw_events

# Double precision; float32 of the prepared events, of which up to a few thousand are added.
EXACT, PREPARED = 1e-9, 1e-5
FAST = ("ttbar", "single_pi", "single_electron")
KINDS = pytest.mark.parametrize("schema", [SCHEMAS["clic"], SCHEMAS["clic_hits"]], ids=lambda s: s.name)


def account(raw, kind):
    """Energy and charge per event: of stable visible-species particles, on targets, and lost."""
    links = link_truth(raw, kind)
    targets = gen_targets(raw, links)
    particles = raw.particles
    out = []
    for column, of_particle, lost in (
        ("energy", links.energy, targets.lost_energy),
        ("charge", particles["charge"], targets.lost_charge),
    ):
        i = PARTICLE_COLUMNS.index(column)
        tables = ((raw.tracks, targets.track), (elements_of(raw, kind), targets.element))
        on_targets = sum(np.bincount(t.event, rows[:, i], minlength=len(raw)) for t, rows in tables)
        total = np.bincount(particles.event, of_particle * links.stable, minlength=len(raw))
        out.append((total, on_targets, lost))
    return out, targets


def assert_closes(raw, kind):
    (energy, charge), targets = account(raw, kind)
    total, on_targets, lost = energy
    np.testing.assert_allclose(on_targets + lost, total, rtol=EXACT)
    assert (lost >= 0).all()
    total, on_targets, lost = charge
    np.testing.assert_allclose(on_targets + lost, total, atol=EXACT)
    return targets


@pytest.fixture(
    scope="module",
    params=[s if s in FAST else pytest.param(s, marks=pytest.mark.slow) for s in CLIC_SAMPLES],
)
def simulated(request, tmp_path_factory):
    num = 10 if request.param.startswith("single") else 3
    (path,) = simulate.run(request.param, num, tmp_path_factory.mktemp(request.param))
    return path


@KINDS
def test_targets_and_account_close_on_simulated_events(simulated, schema):
    kind = schema.kinds[1].name
    for raw in read_edm4hep(simulated):
        assert not any(bad.any() for bad in raw.bad.values())
        targets = assert_closes(raw, kind)
        assert targets.element.any() or targets.track.any()


@KINDS
def test_prepared_events_say_the_same(simulated, schema):
    events = converted(simulated, ELEMENTS[schema.name])
    assert len(events)

    def per_event(table, name, column):
        values = table[name][:, PARTICLE_COLUMNS.index(column)].astype(np.float64)
        return np.bincount(table.event, values, len(events))

    for column in ("energy", "charge"):
        found = events.scalars[f"lost_{column}"].copy()
        for kind in schema.kinds:
            found += per_event(events[kind.name], "ygen", column)
        generated = per_event(events["gen_particles"], "gen_particles", column)
        np.testing.assert_allclose(found, generated, rtol=PREPARED, atol=PREPARED)


def crowded_event(rng):
    event = HandEvent()
    for kind in rng.choice([0, 1, 2], 30):
        pdg, charge = ((22, 0.0), (211, 1.0), (-211, -1.0))[kind]
        event.particle(pdg, charge, *rng.normal(0, 5, 3), mass=0.14 * abs(charge))
    for _ in range(8):
        makers = rng.choice(30, 3, replace=False).tolist()
        event.track(list(zip(makers, rng.dirichlet([1, 1, 1]).tolist(), strict=True)))
    for _ in range(6):
        makers = rng.choice(30, 4, replace=False).tolist()
        deposits = rng.exponential(2, 4).tolist()
        event.cluster([event.hit(sum(deposits), list(zip(makers, deposits, strict=True)))])
    return event


@KINDS
def test_targets_and_account_close_in_crowded_random_events(rng, schema):
    raw = raw_events(*(crowded_event(rng) for _ in range(20)))
    targets = assert_closes(raw, schema.kinds[1].name)
    assert (targets.merged_into >= 0).any()
    assert (targets.num_lost > 0).any()
    for used in (targets.track_of, targets.element_of):
        used = used[used >= 0]
        assert len(np.unique(used)) == len(used)


@KINDS
def test_events_of_a_chunk_do_not_see_each_other(rng, schema):
    events = [crowded_event(rng) for _ in range(5)]
    together = prepare_chunk(raw_events(*events), schema).events
    alone = [prepare_chunk(raw_events(event), schema).events for event in events]
    for i, one in enumerate(alone):
        one.scalars["event"][:] = i
    assert_same_events(together, Events.concatenate(alone))
