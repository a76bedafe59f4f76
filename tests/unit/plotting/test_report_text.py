import math

import pytest

from mlpf.evaluation.metrics import evaluate_predictions
from mlpf.plotting.report_text import caption, class_rows, measured, number, response_rows, scale_sentence
from tests.support.events import dijet_events, predictions_of, rows_of


def numbers(number_of_events=40, with_limits=True):
    events = dijet_events(number_of_events)
    if not with_limits:
        events = [{k: e[k] for k in ("X", "ygen", "ycand")} for e in events]
    predictions = predictions_of("d", events, rows_of(events), "ee_genkt")
    extra = {"split": "test", "inference_events_per_second": 12.5}
    return extra | evaluate_predictions(predictions)


def test_undefined_numbers_are_dashes():
    assert number(None) == "-"
    assert number(0.05678) == "0.0568"
    assert number(0.5, 0.25, 2) == "0.50 ± 0.25"


def test_response_table_has_a_row_per_method():
    header, rows = response_rows(numbers())
    assert [row[0] for row in rows] == ["network", "baseline", "targets", "oracle", "perfect"]
    assert all(len(row) == len(header) for row in rows)
    assert rows[0][1] == "1.000"


def test_class_table_sets_network_beside_baseline():
    header, rows = class_rows(numbers())
    assert header[1:3] == ["network efficiency", "baseline efficiency"]
    assert [row[0] for row in rows][:2] == ["none", "charged hadron"]
    assert rows[1][1].startswith("1.000 ± ")
    assert rows[5][1] == "-"


def test_sentence_says_where_the_network_stands():
    sentence = scale_sentence(numbers())
    assert "network is better than the baseline, difference -0.0" in sentence
    assert "100 % of the way to perfect" in sentence


def narrower(limit, network):
    """Numbers with these widths of the jet response, and a baseline of 0.1."""
    found = numbers()
    widths = {"pred": network, "cand": 0.1, "oracle": limit, "perfect": 0.05}
    for method, width in widths.items():
        found["methods"][method]["jet"]["iqr_over_median"] = width
    for name in ("oracle", "perfect"):
        share = (0.1 - network) / (0.1 - widths[name]) if widths[name] != 0.1 else None
        found["comparison"][f"gap_closed_to_{name}"] = share
    return found


@pytest.mark.parametrize(
    ("limit", "network", "expected"),
    [
        (0.06, 0.08, "; 50 % of the way to oracle, 40 % of the way to perfect"),
        (0.06, 0.11, "; -25 % of the way to oracle, -20 % of the way to perfect"),
        (0.11, 0.08, "; 40 % of the way to perfect"),  # a limit wider than the baseline
        (0.0999, 0.08, "; 40 % of the way to perfect"),  # 20,000 %
        (0.11, 0.2, "(paired)"),  # neither
    ],
)
def test_sentence_has_no_share_of_a_gap_that_is_none(limit, network, expected):
    sentence = scale_sentence(narrower(limit, network))
    assert sentence.endswith(expected)
    assert f"oracle {limit:.4f}" in sentence


def test_sentence_without_limits_or_events_claims_nothing():
    assert "of the way" not in scale_sentence(numbers(with_limits=False))
    assert "better" not in scale_sentence(numbers(0))


def test_caption_states_reference_and_jet_definition():
    text = caption(numbers())
    assert "40 test events, 80 jets of gen particles, ee_genkt R=0.7 p=-1, pt > 5 GeV" in text
    assert "jets of targets" in caption(numbers(with_limits=False))
    assert "no generated particles, its targets stand for them" in caption(numbers(with_limits=False))
    assert "no generated particles" not in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.12345, 0.0123, "0.123 ± 0.012"),
        (123.4, 12.0, "123 ± 12"),
        (123.4, 1.26, "123.4 ± 1.3"),
        (1.0, 0.0, "1 ± 0"),
        (1.23456, None, "1.235"),
        (1.0, math.nan, "1"),
        (None, None, "-"),
        (math.nan, 1.0, "-"),
    ],
)
def test_a_value_has_the_digits_of_its_error(value, error, text):
    assert measured(value, error) == text
