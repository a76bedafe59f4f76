import importlib
from dataclasses import fields

import numpy as np
import pytest

from mlpf.errors import ConfigError, MissingDependency
from mlpf.simulation.clic.event_data import Particles
from mlpf.simulation.clic.generator import SETTINGS, Generator

GUNS = [name for name, sample in SETTINGS.items() if sample.gun]


def assert_same(a: Particles, b: Particles) -> None:
    for f in fields(Particles):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)


@pytest.mark.parametrize("sample", GUNS)
def test_guns_stay_in_their_spectrum(sample: str) -> None:
    generator = Generator(sample, seed=3)
    codes = set()
    for event in range(60):
        particles = generator.generate(event)
        total = np.array([particles.px.sum(), particles.py.sum(), particles.pz.sum()])
        p = np.linalg.norm(total)
        assert 1.0 - 1e-9 <= p <= 100.0 + 1e-9
        assert abs(total[2] / p) <= 0.95 + 1e-9
        mass2 = particles.energy**2 - particles.px**2 - particles.py**2 - particles.pz**2
        # Cancellation at p = 100 GeV: 1e4 GeV^2 x float64.
        np.testing.assert_allclose(mass2, particles.mass**2, atol=1e-10)
        codes.update(particles.pdg.tolist())
    assert codes == ({22} if sample == "single_pi0" else set(SETTINGS[sample].gun))


def test_photons_of_a_neutral_pion_have_its_mass() -> None:
    generator = Generator("single_pi0", seed=0)
    for event in range(20):
        photons = generator.generate(event)
        momentum2 = photons.px.sum() ** 2 + photons.py.sum() ** 2 + photons.pz.sum() ** 2
        assert np.sqrt(photons.energy.sum() ** 2 - momentum2) == pytest.approx(0.13498, abs=1e-6)


def test_the_charge_follows_the_code() -> None:
    generator = Generator("single_mu", seed=0)
    for event in range(10):
        muon = generator.generate(event)
        assert muon.charge[0] == -np.sign(muon.pdg[0])


def test_unknown_samples_are_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"'tt' is not known.*ttbar"):
        Generator("tt", seed=0)


def test_negative_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        Generator("single_pi", seed=-1)


def test_missing_pythia_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.import_module

    def refuse(name: str, package: str | None = None) -> object:
        if name == "pythia8mc":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingDependency, match=r"pip install -e '.\[simulation\]'"):
        Generator("ttbar", seed=0)
    assert len(Generator("single_pi", seed=0).generate(0)) == 1


def test_an_event_is_the_same_alone_and_after_others() -> None:
    pytest.importorskip("pythia8mc")
    generator = Generator("qq", seed=5)
    in_order = [generator.generate(event) for event in range(18)]
    assert_same(Generator("qq", seed=5).generate(17), in_order[17])
    assert_same(generator.generate(3), in_order[3])


def test_seeds_give_different_events() -> None:
    pytest.importorskip("pythia8mc")
    a, b = Generator("qq", seed=5).generate(0), Generator("qq", seed=6).generate(0)
    assert len(a) != len(b) or not np.array_equal(a.px, b.px)


def test_processes_conserve_charge_and_the_beam_energy() -> None:
    pytest.importorskip("pythia8mc")
    generator = Generator("ttbar", seed=1)
    for event in range(5):
        particles = generator.generate(event)
        assert particles.charge.sum() == pytest.approx(0.0, abs=1e-9)
        # Pythia conserves energy to its own tolerance.
        assert particles.energy.sum() == pytest.approx(380.0, abs=1e-2)


def test_overlay_adds_particles_but_no_beam_electrons() -> None:
    pytest.importorskip("pythia8mc")
    overlaid = Generator("ttbar_pu10", seed=1)
    assert all((np.abs(e.pdg[np.abs(e.pz) > 50]) != 11).all() for e in overlaid._pool)
    plain = Generator("ttbar", seed=1)
    events = range(10)
    extra = np.mean([len(overlaid.generate(i)) for i in events]) - np.mean(
        [len(plain.generate(i)) for i in events]
    )
    # Ten overlaid events of about 20 particles each; Poisson and multiplicity spread 10 % of that,
    # the two samples hold different signal events (15 particles each, 10 events).
    assert 120 < extra < 320
    assert_same(overlaid.generate(4), overlaid.generate(4))
