"""Comparison: numbers by hand, and a network against itself."""

from dataclasses import replace

import numpy as np
import pytest

from mlpf.export import RUNTIMES, ExportError, parity
from mlpf.export.conversion import convert
from mlpf.export.parity import Differences, ParityReport, check_parity, compare, count_class_flips, judge
from tests.support.events import clic_like_events
from tests.support.models import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SMALL = Differences({"cls": 2e-6, "pt": 1e-5}, {"cls": 1e-6, "pt": 1e-6}, {"cls": 2e-6, "pt": 1e-3})
GOOD = ParityReport(
    same_bins=SMALL,
    own_bins=SMALL,
    stable=SMALL.largest,
    num_events=2,
    num_unstable_events=0,
    num_elements=100,
    num_unstable_elements=0,
    num_class_flips=1,
    moved_share=0.0,
    has_tolerance=True,
    finite=True,
)


def test_differences_by_hand():
    expected = np.zeros((1, 3, 3), np.float32)
    expected[0, :, 2] = (100.0, 0.5, 0.0)
    found = expected.copy()
    found[0, 0] += (0.25, 0.0, 2.0)  # cls 0.25, pt 2 of 100 GeV
    found[0, 1] += (0.0, -0.5, 0.25)
    found[0, 2, 0] = 0.75  # padding that is not zero
    real = [np.array([[True, True, False]])]
    result = compare([found], [expected], real, {"cls": 2, "pt": 1})
    assert result.largest == {"cls": 0.75, "pt": 0.25}
    assert result.largest_absolute == {"cls": 0.75, "pt": 2.0}
    # of (0, 0, 0.25, 0.5) and of (0.02, 0.25), linear between neighbours
    assert result.percentile_99 == pytest.approx({"cls": 0.25 + 0.97 * 0.25, "pt": 0.02 + 0.99 * 0.23})


def test_class_flips_by_hand():
    expected = np.array([[[3.0, 1.0, 0.0], [0.0, 2.0, 9.0], [1.0, 0.0, 9.0], [0.0, 1.0, 0.0]]])
    found = np.array([[[1.5, 1.6, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 9.0], [1.0, 0.0, 0.0]]])
    real = np.array([[True, True, True, False]])
    # elements 0 and 2; 1 keeps its class (the third column is another output), 3 is padding
    assert count_class_flips([found], [expected], [real], 2) == 2


def test_a_report_shows_what_it_is_judged_by():
    free = Differences({"cls": 0.5, "pt": 0.25}, {"cls": 0.1, "pt": 0.2}, {"cls": 0.5, "pt": 3.0})
    report = replace(GOOD, own_bins=free, stable={"cls": 1e-6, "pt": 1e-7})
    first = {"largest": 1e-6, "percentile_99": 1e-6, "largest_absolute": 2e-6}
    assert report.outputs["cls"] == first
    reduced = replace(report, has_tolerance=False).outputs["pt"]
    assert reduced == {"largest": 0.25, "percentile_99": 0.2, "largest_absolute": 3.0}
    assert report.as_dict()["class_flip_share"] == 0.01


@pytest.mark.parametrize(
    ("precision", "changes", "message"),
    [
        (
            "float32",
            {"stable": {"cls": 1e-6, "pt": 2e-4}},
            "differs from Keras by 2.00e-04 in pt, allowed 1e-04",
        ),
        ("float32", {"stable": {"cls": np.nan, "pt": 0.0}}, "differs from Keras by nan in cls"),
        ("float32", {"num_unstable_elements": 11}, "11% of the elements change with the last digits"),
        ("float32", {"moved_share": 0.021}, "sorts 2.1% of the elements into other bins"),
        ("float16", {"finite": False}, "float16 overflows: NaN, or elements"),
        ("int8", {"num_class_flips": 51}, "51% of the elements change their class in int8, allowed 50%"),
    ],
)
def test_what_is_not_the_network_is_refused(precision, changes, message):
    judge(GOOD, precision, "m.onnx")
    with pytest.raises(ExportError, match=rf"^m.onnx: .*{message}.*no file was written"):
        judge(replace(GOOD, **changes), precision, "m.onnx")


def test_large_differences_of_a_reduced_precision_are_not():
    judge(replace(GOOD, stable={"cls": 3.0, "pt": 100.0}, moved_share=0.5), "int8", "m.onnx")


@pytest.fixture(scope="module")
def model():
    return tiny_model(input_encoding="clic_helix", use_normalizer=False)


@pytest.fixture(scope="module")
def graph(model):
    return convert(model, RUNTIMES["onnxruntime"], 17)


def test_another_network_is_another_network(model, graph):
    events = [parity.reference(model, clic_like_events(2, 40))]
    assert max(check_parity(model, graph, events, 1e-4).stable.values()) < 1e-4
    other = tiny_model(seed=3, input_encoding="clic_helix", use_normalizer=False)
    events = [parity.reference(other, clic_like_events(2, 40))]
    report = check_parity(other, graph, events, 1e-4)
    with pytest.raises(ExportError, match="ONNX differs from Keras by"):
        judge(report, "float32", "m.onnx")
    # What it does is no rounding: hardly an element passes for unstable, and its bins are others.
    assert report.num_unstable_elements < 0.05 * report.num_elements
    assert report.moved_share > parity.MAX_MOVED
    assert report.num_unstable_events == 2


def test_only_rounding_makes_an_element_unstable(model, graph):
    events = [parity.reference(model, clic_like_events(2, 40))]
    # At a tolerance that nothing meets, what differs is within the noise of Keras itself.
    report = check_parity(model, graph, events, 0.0)
    assert report.num_unstable_elements > 0.9 * report.num_elements
    assert max(report.stable.values()) < 1e-5


def test_bins_are_compared_by_place():
    first = [np.array([[0, 1, 2, 3]])]
    # 0 and 1 change places within a bin, 1 and 2 between bins; 3 is padding
    real = np.array([[True, True, True, False]])
    same = parity._in_another_bin(first, [np.array([[1, 0, 2, 3]])], real, 2)
    assert same.tolist() == [[[False] * 4]]
    other = parity._in_another_bin(first, [np.array([[0, 2, 1, 3]])], real, 2)
    assert other.tolist() == [[[False, True, True, False]]]


def test_zeroed_elements_are_not_finite():
    particles = np.ones((1, 2, 3), np.float32)
    real = np.array([[True, False]])
    assert parity._is_finite(particles, real)
    particles[0, 0] = 0.0
    assert not parity._is_finite(particles, real)
    particles[0, 0] = (1.0, np.nan, 0.0)
    assert not parity._is_finite(particles, real)
