from dataclasses import fields

import numpy as np
import pytest

from mlpf.errors import ConfigError
from mlpf.simulation.clic.event_data import Particles
from mlpf.simulation.delphes import generator as delphes_generator
from mlpf.simulation.delphes.generator import DelphesGenerator, PileUpPool
from tests.support.proton_collisions import collision


@pytest.fixture(autouse=True)
def without_pythia(monkeypatch):
    monkeypatch.setattr(delphes_generator, "start_pythia", lambda settings: settings)
    monkeypatch.setattr(
        delphes_generator, "next_event", lambda _, seed: collision(np.random.default_rng(seed), size=100)
    )


def same(first, second):
    return all(np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(Particles))


def test_an_event_depends_on_sample_seed_and_number():
    first = DelphesGenerator("delphes_ttbar", 1, 5.0, pool_size=20)
    again = DelphesGenerator("delphes_ttbar", 1, 5.0, pool_size=20)
    again.generate(3)
    assert same(first.generate(7), again.generate(7))
    assert not same(first.generate(7), first.generate(8))
    for sample, seed in (("delphes_ttbar", 2), ("delphes_qcd", 1)):
        assert not same(first.generate(7), DelphesGenerator(sample, seed, 5.0, pool_size=20).generate(7))


def test_pile_up_is_added_to_the_same_signal():
    signal = DelphesGenerator("delphes_qcd", 1, 0.0).generate(2)
    both = DelphesGenerator("delphes_qcd", 1, 30.0, pool_size=20).generate(2)
    assert len(both) > 10 * len(signal)
    for name in ("pdg", "px", "pz", "vz"):
        np.testing.assert_array_equal(getattr(both, name)[: len(signal)], getattr(signal, name))


def test_the_pool_holds_what_can_be_seen():
    drawn = PileUpPool(1, size=20).draw(50.0, np.random.default_rng(1))
    pt = np.hypot(drawn.px, drawn.py)
    assert (pt >= 0.1).all()
    assert np.abs(np.arcsinh(drawn.pz / pt)).max() < 5.0
    assert not np.isin(drawn.pdg, (12, -12)).any()


def test_the_number_of_collisions_is_poisson():
    pool = PileUpPool(1, size=20)
    rng = np.random.default_rng(5)
    sizes = np.array([len(pool.draw(40.0, rng)) for _ in range(300)])
    per_collision = len(pool._particles) / len(pool)
    assert sizes.mean() / per_collision == pytest.approx(40.0, rel=0.04)
    assert sizes.std() / per_collision == pytest.approx(np.sqrt(40.0), rel=0.15)
    assert len(pool.draw(0.0, rng)) == 0


def test_drawn_collisions_are_turned_mirrored_and_moved_as_a_whole():
    pool = PileUpPool(1, size=1)
    original = pool._particles
    drawn = pool.draw(200.0, np.random.default_rng(2))
    copies = len(drawn) // len(original)
    assert len(drawn) == copies * len(original)
    shape = (copies, len(original))
    px, py, pz, vz = (getattr(drawn, name).reshape(shape) for name in ("px", "py", "pz", "vz"))
    angle = np.arctan2(py, px) - np.arctan2(original.py, original.px)
    np.testing.assert_allclose(np.cos(angle), np.cos(angle[:, :1]) + 0 * angle, atol=1e-9)
    np.testing.assert_allclose(np.hypot(px, py), np.hypot(original.px, original.py) + 0 * px)
    mirror = np.sign(pz / original.pz)
    np.testing.assert_array_equal(mirror, mirror[:, :1] + 0 * mirror)
    assert set(np.unique(mirror)) == {-1.0, 1.0}
    shift = vz - mirror * original.vz
    np.testing.assert_allclose(shift, shift[:, :1] + 0 * shift, atol=1e-9)
    assert shift[:, 0].std() == pytest.approx(53.0, rel=0.2)
    # Directions fill the circle.
    assert np.abs(np.exp(1j * angle[:, 0]).mean()) < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("ttbar", 1, 0.0), "choose one of delphes_ttbar, delphes_qcd"), (("delphes_qcd", -1, 0.0), "negative"),
     (("delphes_qcd", 1, -2.0), "negative")],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DelphesGenerator(*arguments)
