import pytest

from mlpf.config.loading import write_resolved
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.search.algorithms import build_oracle
from mlpf.search.successive_halving import rung_epochs
from tests.support.search import complete, drive, search_config


def make(directory, **section):
    config = search_config(algorithm="asha", **section)
    write_resolved(config, directory / RESOLVED_CONFIG)
    return build_oracle(directory, config)


@pytest.mark.parametrize(
    ("min_epochs", "factor", "max_epochs", "wanted"),
    [(1, 3, 9, [1, 3, 9]), (1, 3, 10, [1, 3, 10]), (1, 2, 9, [1, 2, 4, 9]), (5, 2, 5, [5]), (7, 2, 5, [5])],
)
def test_rungs(min_epochs, factor, max_epochs, wanted):
    assert rung_epochs(min_epochs, factor, max_epochs) == wanted


def test_worked_example(tmp_path):
    """One worker, nine configurations, of three one goes on; objectives by run and epochs given by hand."""
    objectives = {
        1: {
            "0000": 5,
            "0001": 4,
            "0002": 6,
            "0004": 3,
            "0006": 7,
            "0007": 2,
            "0010": 8,
            "0011": 9,
            "0012": 1,
        },
        3: {"0001": 3.5, "0004": 2.5, "0007": 3.0, "0012": 0.5},
        9: {"0004": 1.5, "0012": 0.4},
    }
    oracle = make(tmp_path, num_trials=9)
    drive(oracle, objective=lambda record: objectives[record.epochs][record.run])
    records = oracle.records.values()
    assert [(r.run, r.initial_epoch, r.epochs) for r in records] == [
        ("0000", 0, 1),
        ("0001", 0, 1),
        ("0002", 0, 1),
        ("0001", 1, 3),  # the best of three
        ("0004", 0, 1),
        ("0004", 1, 3),  # has the one place of four; 0001 had it before
        ("0006", 0, 1),
        ("0007", 0, 1),
        ("0007", 1, 3),  # two places of six: this one and 0004
        ("0004", 3, 9),  # the best of three after 3 epochs
        ("0010", 0, 1),
        ("0011", 0, 1),
        ("0012", 0, 1),
        ("0012", 1, 3),  # three places of nine
        ("0012", 3, 9),  # the best of four after 3 epochs
    ]
    assert [r.rung for r in records if r.run == "0012"] == [0, 1, 2]
    assert sum(r.epochs - r.initial_epoch for r in records) == 9 * 1 + 4 * 2 + 2 * 6
    assert oracle.finished


def test_a_small_search_ends_with_a_full_training(tmp_path):
    oracle = make(tmp_path, num_trials=2)
    drive(oracle)
    assert [r.epochs for r in oracle.records.values()] == [1, 1, 3, 9]


def test_a_failed_promotion_gives_its_place_to_the_next(tmp_path):
    oracle = make(tmp_path, num_trials=2)
    for _ in range(2):
        complete(oracle, oracle.next_trial())
    first = oracle.next_trial()
    oracle.fail(first.trial_id, "x", "nan", 1.0)
    second = oracle.next_trial()
    assert second.run != first.run
    assert second.rung == 1


@pytest.mark.parametrize("num_slots", [1, 2, 7])
@pytest.mark.parametrize("seed", range(5))
def test_fewer_epochs_than_random_and_the_best_reaches_the_top(tmp_path, num_slots, seed):
    """Objectives whose order is the same after any number of epochs: the best of all must win."""
    oracle = make(tmp_path, num_trials=27)
    drive(oracle, num_slots=num_slots, seed=seed)
    configurations = {r.run: r for r in oracle.records.values() if r.rung == 0}
    best = min(configurations.values(), key=lambda r: r.objective)
    top = [r for r in oracle.records.values() if r.epochs == 9]
    assert min(top, key=lambda r: r.objective).run == best.run
    assert sum(r.epochs - r.initial_epoch for r in oracle.records.values()) < 27 * 9 / 2
    assert len(configurations) == 27


@pytest.mark.parametrize("seed", range(12))
def test_no_checkpoint_is_removed_that_is_needed_later(tmp_path, seed):
    removed = set()

    def look(oracle):
        started = {r.run for r in oracle.records.values() if r.status == "running"}
        assert not started & removed
        removed.update({r.run for r in oracle.records.values()} - oracle.runs_to_keep())

    oracle = make(tmp_path, num_trials=20, factor=2 + seed % 3)
    drive(oracle, num_slots=1 + seed % 4, seed=seed, on_step=look)
    assert removed


def test_a_space_of_few_configurations_ends(tmp_path):
    oracle = make(tmp_path, num_trials=50, space={"setup.optimizer": {"choice": ["adam", "adamw", "sgd"]}})
    drive(oracle, num_slots=2)
    assert sum(r.rung == 0 for r in oracle.records.values()) == 3
    assert oracle.finished
