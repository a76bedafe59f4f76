import pytest

from mlpf.config.recorded_metrics import SUMMARY_NAMES
from mlpf.evaluation.metrics import evaluate_predictions, response_summary
from mlpf.evaluation.predictions import make_reference
from tests.support.events import dijet_events, predictions_of, prepared, rows_of, scaled


def test_the_summary_holds_the_numbers_of_the_full_evaluation():
    events = dijet_events(40)
    predictions = predictions_of("d", events, [scaled(r, 0.9) for r in rows_of(events)], "ee_genkt")
    full = evaluate_predictions(predictions, num_resamples=2)["methods"]
    for method in ("pred", "cand", "oracle", "perfect"):
        jet, met = full[method]["jet"], full[method]["met"]
        assert response_summary(predictions, method) == {
            "jet_response_median": jet["median"],
            "jet_response_iqr": jet["iqr_over_median"],
            "jet_matched_fraction": jet["matched_fraction"],
            "met_response_median": met["median"],
            "met_response_iqr": met["iqr_over_median"],
        }
    assert response_summary(predictions, "pred")["jet_response_median"] == pytest.approx(0.9, abs=1e-6)


def test_undefined_numbers_are_left_out():
    events = dijet_events(3)
    predictions = predictions_of("d", events, [0 * rows for rows in rows_of(events)], "ee_genkt")
    assert response_summary(predictions, "pred").keys() <= set(SUMMARY_NAMES)
    assert response_summary(predictions, "pred")["jet_matched_fraction"] == 0
    assert "jet_response_iqr" not in response_summary(predictions, "pred")
    assert response_summary(make_reference("d", prepared([]), "ee_genkt"), "cand") == {}
