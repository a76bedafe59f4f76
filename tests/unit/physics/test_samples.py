"""One list of samples: simulation, datasets, download and documentation know the same ones."""

import numpy as np
import pytest

from mlpf.data.dataset.examples import clic_configs, delphes_configs
from mlpf.data.download import archive
from mlpf.physics.samples import CLIC_SAMPLES, DELPHES_SAMPLES, GUN_MOMENTUM
from mlpf.simulation.clic import generator as clic_generator
from mlpf.simulation.delphes import generator as delphes_generator

ALL = [*CLIC_SAMPLES.values(), *DELPHES_SAMPLES.values()]


def test_names_in_programs_are_unique():
    assert len({sample.simulation_name for sample in ALL}) == len(ALL)
    assert len({sample.download_name for sample in ALL}) == len(ALL)


def test_the_simulation_generates_every_sample():
    assert list(clic_generator.SETTINGS) == [sample.simulation_name for sample in CLIC_SAMPLES.values()]
    assert list(delphes_generator.SETTINGS) == [sample.simulation_name for sample in DELPHES_SAMPLES.values()]


def test_samples_without_collision_are_guns():
    for name, settings in clic_generator.SETTINGS.items():
        assert bool(settings.gun) == CLIC_SAMPLES[name].is_gun
        assert bool(settings.pythia) != CLIC_SAMPLES[name].is_gun
        assert (settings.overlay_mean > 0) == bool(CLIC_SAMPLES[name].overlay)


def test_guns_have_the_momentum_that_is_described():
    gun = clic_generator.Generator("single_gamma", seed=1)
    momenta = [gun.generate(event).energy[0] for event in range(200)]
    low, high = GUN_MOMENTUM
    assert low <= np.min(momenta) < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < np.max(momenta) <= high
    assert CLIC_SAMPLES["single_gamma"].description == "single gamma, 1 to 100 GeV"


@pytest.mark.parametrize(
    ("configs", "samples"), [(clic_configs(), CLIC_SAMPLES), (delphes_configs(), DELPHES_SAMPLES)]
)
def test_recipes_have_one_configuration_per_sample(configs, samples):
    found = {config.name: config.description for config in configs}
    assert found == {sample.name: sample.description for sample in samples.values()}


def test_the_download_has_the_detector_files_of_every_sample():
    assert {sample.download_name for sample in ALL} <= archive.SAMPLES.keys()


def test_descriptions_name_process_energy_and_overlay():
    assert CLIC_SAMPLES["qq"].description == "e+e- -> quark pair, 380 GeV"
    assert DELPHES_SAMPLES["ttbar"].description == "pp -> top pair, 14 TeV, on average 200 further collisions"


def test_the_documentation_lists_every_process(repo_root):
    pages = {s: "delphes.md" if s.detector == "delphes" else "simulation.md" for s in ALL}
    texts = {p: (repo_root / "docs" / p).read_text(encoding="utf-8") for p in set(pages.values())}
    names = [(s.simulation_name, texts[page]) for s, page in pages.items() if not s.is_gun]
    assert [name for name, text in names if f"`{name}`" not in text] == []
    text = texts["simulation.md"]
    row = next(line for line in text.splitlines() if line.startswith("| `single_<particle>`"))
    guns = [s.name.removeprefix("single_") for s in ALL if s.is_gun]
    assert [gun for gun in guns if f"`{gun}`" not in row] == []
