import math

import pytest

from mlpf.search.results.gain import cost, gains
from mlpf.search.state import SearchState, TrialRecord
from tests.support.search_directories import completed, confirmation, search_config

DEFAULT = {2: 1.0, 3: 1.2, 4: 1.1}
CHOSEN = {2: 0.8, 3: 0.9, 4: 1.0}


def state(*trials):
    return SearchState("somewhere", search_config(), list(trials), finished=True)


def confirmations(of, objectives):
    return [confirmation(of, seed, value) for seed, value in objectives.items()]


def test_gain_is_the_mean_difference_of_pairs_with_the_error_of_a_mean():
    (gain,) = gains(state(*confirmations("0003", CHOSEN), *confirmations("default", DEFAULT)))

    # differences 0.2, 0.3, 0.1: mean 0.2, standard deviation 0.1
    assert (gain.run, gain.gain.n) == ("0003", 3)
    assert gain.gain.mean == pytest.approx(0.2, abs=1e-12)
    assert gain.gain.error == pytest.approx(0.1 / math.sqrt(3), abs=1e-12)
    # 0.9 and its deviations 0.1, 0, -0.1; 1.1 and 0.1, 0, -0.1
    assert gain.configuration.mean == pytest.approx(0.9, abs=1e-12)
    assert gain.configuration.error == pytest.approx(0.1 / math.sqrt(3), abs=1e-12)
    assert gain.default.mean == pytest.approx(1.1, abs=1e-12)
    assert (gain.by_seed, gain.default_by_seed) == (CHOSEN, DEFAULT)


def test_relative_gain_is_a_ratio_of_means_with_the_error_of_one():
    (gain,) = gains(state(*confirmations("0003", CHOSEN), *confirmations("default", DEFAULT)))

    # ratio 0.2 / 1.1; residuals 0.2 - r, 0.3 - 1.2 r, 0.1 - 1.1 r = 2 / 110, 9 / 110, -11 / 110
    deviation = math.sqrt((2**2 + 9**2 + 11**2) / 2) / 110
    assert gain.relative.mean == pytest.approx(2 / 11, abs=1e-12)
    assert gain.relative.error == pytest.approx(deviation / math.sqrt(3) / 1.1, abs=1e-12)


def test_a_gain_in_proportion_to_the_default_has_no_error():
    chosen = {seed: 0.8 * value for seed, value in DEFAULT.items()}
    (gain,) = gains(state(*confirmations("0003", chosen), *confirmations("default", DEFAULT)))

    assert gain.relative.mean == pytest.approx(0.2, abs=1e-12)
    assert gain.relative.error == pytest.approx(0.0, abs=1e-12)
    assert gain.gain.error > 0.01


def test_only_seeds_that_both_completed_are_pairs():
    chosen, default = confirmations("0003", CHOSEN), confirmations("default", DEFAULT)
    chosen[0].status, default[1].status = "failed", "running"
    (gain,) = gains(state(*chosen, *default))

    assert (gain.configuration.n, gain.default.n, gain.gain.n) == (2, 2, 1)
    assert gain.gain.mean == pytest.approx(0.1, abs=1e-12)
    assert math.isnan(gain.gain.error)


def test_without_pairs_there_is_a_row_but_no_number():
    (gain,) = gains(state(*confirmations("0003", CHOSEN)))

    assert gain.gain.n == gain.relative.n == 0
    assert math.isnan(gain.gain.mean)
    assert math.isnan(gain.relative.mean)


def test_a_search_without_confirmation_has_no_gains():
    assert gains(state(completed("0000", 1.0))) == []


def test_configurations_come_in_the_order_of_the_search():
    searched = [completed("0000", 0.7), completed("0001", 0.5), completed("0002", 0.6)]
    confirmed = [c for run in ("0000", "0002", "0001") for c in confirmations(run, CHOSEN)]

    assert [gain.run for gain in gains(state(*searched, *confirmed))] == ["0001", "0002", "0000"]


def test_an_objective_below_zero_has_a_gain_in_units_of_its_size():
    pairs = confirmations("0000", {1: -3.0, 2: -3.0}), confirmations("default", {1: -2.0, 2: -2.0})
    (gain,) = gains(state(*pairs[0], *pairs[1]))

    assert gain.relative.mean == pytest.approx(0.5)


def test_cost_counts_devices_and_tells_groups_apart():
    trials = [
        completed("0000", 1.0, devices=4, on_gpu=True),
        TrialRecord("0001", "0001", status="failed", devices=2),
        TrialRecord("0002", "0002", status="running", devices=1),
        TrialRecord("0003", "0003", status="waiting", devices=1),
        confirmation("0000", 2, 1.0, devices=1, on_gpu=True),
    ]
    seconds = dict(zip((t.trial_id for t in trials), (1800.0, 900.0, 60.0, 300.0, 360.0), strict=True))
    epochs = dict(zip((t.trial_id for t in trials), (9, 2, 1, 3, 8), strict=True))
    total = cost(trials, seconds, epochs)

    # 1800 s on 4 GPUs = 2 h, 900 s on 2 cores = 0.5 h, 360 s on one core = 0.1 h
    assert total.gpu_hours == pytest.approx({"completed": 2.0, "failed": 0, "unfinished": 0, "confirm": 0.1})
    assert total.core_hours == pytest.approx({"completed": 0, "failed": 0.5, "unfinished": 0.1, "confirm": 0})
    assert total.epochs == {"completed": 9, "failed": 2, "unfinished": 4, "confirm": 8}
