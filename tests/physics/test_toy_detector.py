"""The toy detector and its rule-based particle flow reproduce their measured performance.

Reference values: 1000 ttbar events, ``python -m pytest tests/physics/test_toy_detector.py -m slow``.
"""

import numpy as np
import pytest

from mlpf.simulation.detector import CLIC
from mlpf.simulation.event import simulate_event
from mlpf.simulation.generator import Generator
from tests.support.toy_jets import (
    baseline_momenta,
    calorimeter_momenta,
    gen_momenta,
    jets_of,
    perfect_momenta,
    response,
)

pytest.importorskip("pythia8mc")


def simulate(num_events):
    generator = Generator("ttbar", 1)
    return [simulate_event(generator, 1, "ttbar", number, CLIC) for number in range(num_events)]


def mean_size(events, name):
    return np.mean([len(getattr(event, name)) for event in events])


def responses(events):
    gen = jets_of([gen_momenta(event) for event in events])
    lists = {
        "baseline": [baseline_momenta(event) for event in events],
        "perfect": [perfect_momenta(event, CLIC.bending) for event in events],
        "calorimeter": [calorimeter_momenta(event) for event in events],
    }
    return {name: response(gen, jets_of(momenta)) for name, momenta in lists.items()}


def test_thirty_events_have_the_right_size_and_resolution():
    events = simulate(30)
    # About 150 jets: the statistical error of an IQR is 10 %; bounds are three of them and more.
    assert 95 < mean_size(events, "clusters") < 145
    assert 37 < mean_size(events, "tracks") < 58
    result = responses(events)
    assert 0.04 < result["baseline"][1] < 0.10
    assert 0.02 < result["perfect"][1] < 0.045
    assert abs(result["baseline"][0] - 1) < 0.03
    assert result["perfect"][1] < result["baseline"][1] < result["calorimeter"][1]


@pytest.mark.slow
def test_two_hundred_events_have_the_measured_performance():
    events = simulate(200)
    # About 1050 jets: the error of an IQR is 4 %; bounds are 2.5 of them around the 1000-event values.
    result = responses(events)
    assert result["baseline"][1] == pytest.approx(0.066, abs=0.007)
    assert result["perfect"][1] == pytest.approx(0.029, abs=0.003)
    assert result["calorimeter"][1] == pytest.approx(0.129, abs=0.016)
    assert result["baseline"][0] == pytest.approx(1.0, abs=0.02)
    assert result["baseline"][2] > 0.90
    assert mean_size(events, "clusters") == pytest.approx(118, abs=10)
    assert mean_size(events, "tracks") == pytest.approx(46, abs=5)
    assert mean_size(events, "hits") == pytest.approx(1308, abs=120)
