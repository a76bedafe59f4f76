"""Delphes-like events from the generator to a training, as ROOT files and as published pickles."""

from functools import partial

import numpy as np
import pytest

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.data.dataset.splitting import partition
from mlpf.data.events import Events, read_metadata
from mlpf.errors import MLPFError, OutputExists
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.simulation.delphes.generator import DelphesGenerator
from mlpf.workflows import build, postprocess, simulate, train
from tests.support.conversions import assert_same_events
from tests.support.delphes_files import HandDelphes, simple_delphes, write_delphes
from tests.support.models import TINY_NETWORK
from tests.support.proton_collisions import FakeGenerator

NUM_FILES, EVENTS_PER_FILE = 4, 2
FRACTIONS = (0.5, 0.5, 0.0)
OPTIONS = {"events_per_file": EVENTS_PER_FILE, "seed": 5, "pileup": 10.0}
FORMATS = ("root", "pickle")


@pytest.fixture(scope="module", autouse=True)
def _fake_generator():
    """Starting Pythia twice, for signal and pile-up, takes longer than all the rest."""

    def fake(sample, seed, pileup):
        return FakeGenerator(int(40 * pileup), seed, sample)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulate, "DelphesGenerator", fake)
        simulate._delphes_generator.cache_clear()
        yield
    simulate._delphes_generator.cache_clear()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    number = NUM_FILES * EVENTS_PER_FILE
    return {
        name: simulate.run("delphes_qcd", number, folder / name, file_format=name, **OPTIONS)
        for name in FORMATS
    }


@pytest.fixture(scope="module")
def parquet(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    for name, files in simulated.items():
        summary = postprocess.run([files[0].parent], folder / name)
        assert (summary.num_events, summary.num_failed) == (NUM_FILES * EVENTS_PER_FILE, 0)
        assert summary.skipped == {}
    return folder


def test_files_have_the_published_names(simulated):
    for name, suffix in zip(FORMATS, (".root", ".pkl.bz2"), strict=True):
        expected = [f"tev14_pythia8_qcd_5_{i}{suffix}" for i in range(NUM_FILES)]
        assert [path.name for path in simulated[name]] == expected


def test_both_formats_become_the_same_events(parquet):
    for i in range(NUM_FILES):
        root, pickled = (
            Events.from_parquet(parquet / name / f"tev14_pythia8_qcd_5_{i}.parquet") for name in FORMATS
        )
        assert len(root) == EVENTS_PER_FILE
        assert_same_events(pickled, root, rtol=1e-6)


def test_finished_files_are_kept_and_others_are_not_replaced(simulated):
    for name, files in simulated.items():
        before = [path.stat().st_mtime_ns for path in files]
        again = partial(simulate.run, "delphes_qcd", EVENTS_PER_FILE * NUM_FILES, files[0].parent)
        assert again(file_format=name, **OPTIONS) == files
        assert [path.stat().st_mtime_ns for path in files] == before
        with pytest.raises(OutputExists, match=r"holds delphes_qcd \(pile-up 10\) .* asked for .*pile-up 11"):
            again(file_format=name, **{**OPTIONS, "pileup": 11.0})


def test_an_event_is_the_same_in_any_file(simulated, tmp_path):
    path = simulate.run("delphes_qcd", 1, tmp_path, first_event=3, **{**OPTIONS, "events_per_file": 1})[0]
    postprocess.run([path], tmp_path / "alone")
    postprocess.run([simulated["root"][1]], tmp_path / "together")
    alone, together = (
        Events.from_parquet(tmp_path / name / f"{source.stem}.parquet")
        for name, source in (("alone", path), ("together", simulated["root"][1]))
    )
    second = together.take(np.array([1]))
    for name, table in alone.tables.items():
        for column, rows in table.columns.items():
            np.testing.assert_array_equal(rows, second[name][column])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ttbar", {"pileup": 5.0}), "sample ttbar has no option --pileup"),
        (("ttbar", {"file_format": "pickle"}), "sample ttbar has no option --format"),
        (("delphes_qcd", {"layout": "new"}), "sample delphes_qcd has no option --layout"),
        (("delphes_tbar", {}), "did you mean 'delphes_ttbar'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, arguments, message):
    sample, options = arguments
    with pytest.raises(MLPFError, match=message):
        simulate.run(sample, 1, tmp_path, **options)


def test_files_of_delphes_need_no_generator(tmp_path):
    write_delphes(tmp_path / "a.root", [simple_delphes(), HandDelphes(), simple_delphes(20.0)])
    summary = postprocess.run([tmp_path / "a.root"], tmp_path / "parquet")
    assert summary.num_events == 2
    assert summary.skipped == {"no tracks and no towers": 1}
    metadata = read_metadata(tmp_path / "parquet" / "a.parquet")
    assert metadata["schema"] == "delphes"


def split_seed(files):
    """A seed that gives both splits a file."""
    return next(seed for seed in range(100) if partition(files, seed, FRACTIONS).by == "file")


@pytest.mark.slow
def test_a_network_trains_on_the_dataset(parquet, tmp_path, repo_root):
    files = sorted((parquet / "pickle").glob("*.parquet"))
    seed = split_seed(files)
    summary = build.run("delphes_pf/qcd", tmp_path, files, split_seed=seed, split_fractions=FRACTIONS)
    assert sum(summary.events.values()) == NUM_FILES * EVENTS_PER_FILE
    published = load_config(repo_root / "parameters" / "delphes.yaml")
    source = {"version": "1.0.0", "data_dir": str(tmp_path)}
    config = Config.model_validate(
        {
            "dataset": {"schema": "delphes"},
            "loss": published.loss.model_dump(),
            "setup": {"num_epochs": 1, "lr_schedule": "none"},
            "parameters": {**TINY_NETWORK, "use_normalizer": True},
            "callbacks": {"tensorboard": False, "physics": {"every": 0}},
            "train_test_datasets": {"physical": {"batch_per_gpu": 1, "datasets": ["delphes_pf/qcd"]}},
            "validation_dataset": "delphes_pf/qcd",
            "validation_batch_size": 1,
            "evaluation_datasets": {},
            "datasets": {"delphes_pf/qcd": source},
        }
    )
    (record,) = train.run(config, tmp_path / "run", ntrain=2, ntest=2).history
    assert record["num_events"] == 2
    assert np.isfinite(record["loss"])
    assert np.isfinite(record["val_loss"])


@pytest.mark.slow
def test_generated_events_look_like_proton_collisions(tmp_path, monkeypatch):
    """The multiplicities of the published events at 200 further collisions: 5000 to 6000 elements."""
    pytest.importorskip("pythia8mc")
    monkeypatch.setattr(simulate, "DelphesGenerator", partial(DelphesGenerator, pool_size=200))
    simulate._delphes_generator.cache_clear()
    simulate.run("delphes_ttbar", 5, tmp_path)
    postprocess.run([tmp_path], tmp_path / "parquet")
    events = Events.from_parquet(tmp_path / "parquet" / "tev14_pythia8_ttbar_1_0.parquet")
    tracks, towers = (len(events[name]) / 5 for name in ("track", "tower"))
    assert 1800 < tracks < 3500
    assert 2300 < towers < 3200
    assert 4000 < tracks + towers < 6500
    energy = PARTICLE_COLUMNS.index("energy")
    gen, cand = (
        sum(events[name][kind][:, energy].sum() for name in ("track", "tower")) for kind in ("ygen", "ycand")
    )
    assert 0.9 < cand / gen < 1.2
    simulate._delphes_generator.cache_clear()
