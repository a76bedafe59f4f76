"""Reconstructions whose quality is known give the numbers they must."""

import json

import numpy as np
import pytest

from mlpf.data.flat_tables import Table
from mlpf.evaluation.metrics import (
    binned_jet_response,
    class_fractions_by_energy,
    class_sums,
    evaluate_predictions,
)
from mlpf.evaluation.particles import missing_momentum
from mlpf.evaluation.statistics import bootstrap_weights
from mlpf.physics.features import PARTICLE_COLUMNS
from tests.support.events import dijet_events, predictions_of, rows_of, scaled

CLS = PARTICLE_COLUMNS.index("cls")


def numbers_of(events, predicted):
    return evaluate_predictions(predictions_of("d", events, predicted, "ee_genkt"))


def test_perfect_predictions_have_response_one_and_no_fakes():
    events = dijet_events(30)
    numbers = numbers_of(events, rows_of(events))
    jet = numbers["methods"]["pred"]["jet"]
    assert jet["median"] == pytest.approx(1, abs=1e-9)  # the same float32 inputs
    assert jet["iqr_over_median"] == pytest.approx(0, abs=1e-9)
    assert jet["matched_fraction"] == 1
    assert numbers["methods"]["pred"]["energy"]["median"] == pytest.approx(1, abs=1e-9)
    for name in ("none", "charged hadron", "photon"):
        assert numbers["classes"]["pred"][name]["efficiency"]["value"] == 1
        assert numbers["classes"]["pred"][name]["fake_rate"]["value"] == 0
    assert numbers["classes"]["pred"]["muon"]["efficiency"]["value"] is None
    assert numbers["gen_reference"] == "gen_particles"


def test_known_scale_shows_up_as_the_median_of_every_response():
    events = dijet_events(30)
    numbers = numbers_of(events, [scaled(rows, 0.9) for rows in rows_of(events)])
    for quantity in ("jet", "energy", "met"):
        assert numbers["methods"]["pred"][quantity]["median"] == pytest.approx(0.9, abs=1e-6)  # float32
        assert numbers["methods"]["pred"][quantity]["iqr_over_median"] == pytest.approx(0, abs=1e-6)


def test_known_spread_shows_up_as_the_width():
    rng = np.random.default_rng(5)
    events = dijet_events(400, seed=5)
    predicted = [scaled(rows, rng.normal(1, 0.05)) for rows in rows_of(events)]
    jet = numbers_of(events, predicted)["methods"]["pred"]["jet"]
    # quartiles of a normal distribution lie at 0.6745 sigma; 400 events know the width to about 6 %
    assert jet["iqr_over_median"] == pytest.approx(2 * 0.6745 * 0.05, abs=0.012)
    assert 0.001 < jet["iqr_over_median_uncertainty"] < 0.012


def test_comparison_has_the_sign_of_the_better_method():
    events = dijet_events(100, seed=6)
    better = numbers_of(events, rows_of(events))["comparison"]
    assert better["iqr_over_median_difference"] < 0
    assert better["gap_closed_to_perfect"] == pytest.approx(1, abs=1e-6)  # float32
    same = numbers_of(events, rows_of(events, "ycand"))["comparison"]
    assert same["iqr_over_median_difference"] == 0
    assert same["iqr_over_median_difference_uncertainty"] == 0
    assert same["gap_closed_to_oracle"] == 0


def test_no_gap_to_a_limit_that_is_not_better_than_the_baseline():
    events = dijet_events(100, seed=6)
    rng = np.random.default_rng(6)
    for event in events:
        event["ycand"] = event["ygen"]  # of zero width
        event["oracle_particles"] = scaled(event["oracle_particles"], rng.normal(1, 0.05))
    numbers = numbers_of(events, rows_of(events))
    width = {m: numbers["methods"][m]["jet"]["iqr_over_median"] for m in ("cand", "oracle")}
    assert width["oracle"] > 0.01 > width["cand"]
    assert "gap_closed_to_oracle" not in numbers["comparison"]


def test_paired_difference_is_better_known_than_two_independent_widths():
    events = dijet_events(200, seed=7)
    numbers = numbers_of(events, [scaled(rows, 1.01) for rows in rows_of(events, "ycand")])
    width = numbers["methods"]["cand"]["jet"]["iqr_over_median_uncertainty"]
    assert numbers["comparison"]["iqr_over_median_difference_uncertainty"] < 0.3 * width


def test_lost_particles_lower_the_efficiency_and_invented_ones_are_fakes():
    events = dijet_events(1)
    predicted = rows_of(events)
    rows = predicted[0].copy()
    rows[0] = 0  # one of six charged hadrons lost
    rows[10] = rows[9]  # a photon where there is nothing
    rows[6, CLS] = 2  # one of four photons taken for a neutral hadron
    classes = numbers_of(events, [rows])["classes"]["pred"]
    assert classes["charged hadron"]["efficiency"]["value"] == pytest.approx(5 / 6, abs=1e-12)
    assert classes["charged hadron"]["fake_rate"]["value"] == 0
    assert classes["photon"]["efficiency"]["value"] == 0.75
    assert classes["photon"]["fake_rate"]["value"] == 0.25
    assert classes["neutral hadron"]["fake_rate"]["value"] == 1
    assert classes["none"]["fake_rate"]["value"] == 0.5


def test_jets_that_are_not_found_lower_the_matched_fraction_only():
    events = dijet_events(10)
    predicted = rows_of(events)
    for rows in predicted[:5]:
        rows[:] = 0
    jet = numbers_of(events, predicted)["methods"]["pred"]["jet"]
    assert jet["matched_fraction"] == 0.5
    assert jet["median"] == pytest.approx(1, abs=1e-9)


def test_small_gen_missing_momentum_is_left_out():
    events = dijet_events(50)
    predictions = predictions_of("d", events, rows_of(events), "ee_genkt")
    numbers = evaluate_predictions(predictions)
    expected = int(np.sum(missing_momentum(predictions.particles["gen"]) >= numbers["min_gen_met"]))
    assert 0 < expected < 50
    assert numbers["methods"]["cand"]["met"]["count"] == expected


def test_empty_sample_gives_numbers_that_are_undefined_not_wrong():
    numbers = numbers_of([], [])
    assert numbers["methods"]["pred"]["jet"]["median"] is None
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_same_seed_gives_the_same_numbers():
    events = dijet_events(20)
    assert numbers_of(events, rows_of(events)) == numbers_of(events, rows_of(events))


def test_binned_response_covers_every_matched_jet_once():
    events = dijet_events(40)
    predictions = predictions_of("d", events, rows_of(events, "ycand"), "ee_genkt")
    bins = binned_jet_response(predictions, "cand", bootstrap_weights(40, 20), edges=(5.0, 50.0, 1e4))
    assert sum(b["count"] for b in bins) == len(predictions.matched_jets["cand"])


def test_efficiency_by_energy_counts_in_the_energy_of_the_target():
    columns = {
        "target.cls": np.array([3, 3, 0]),
        "target.energy": np.array([1.0, 9.0, 0.0]),
        "pred.cls": np.array([3, 0, 3]),
        "pred.energy": np.array([1.5, 0.0, 9.0]),
    }
    elements = Table(columns, np.array([0, 3]))
    result = class_fractions_by_energy(elements, "pred", 3, edges=(0.5, 5.0, 20.0))
    assert [f.value for f in result["efficiency"]] == [1, 0]
    assert [f.value for f in result["fake_rate"]] == [0, 1]


def test_sums_per_class_count_particles_and_energy():
    events = dijet_events(3)
    predictions = predictions_of("d", events, rows_of(events), "ee_genkt")
    number, energy = class_sums(predictions, "gen", 3)
    assert number.tolist() == [4, 4, 4]
    gen = predictions.particles["gen"]
    assert energy.sum() == pytest.approx(gen["energy"][gen["cls"] == 3].sum(), abs=1e-6)
