import numpy as np
import pytest

from mlpf.evaluation import latency
from mlpf.evaluation.latency import Latency, measure, scaling_exponents


def at(engine, num_elements, p50, batch_size=1):
    return Latency(engine, batch_size, num_elements, p50, p50, 1.0, None, p50, 5)


def test_passes_of_engines_alternate_and_quantiles_are_theirs(monkeypatch):
    clock, calls = [0.0], []
    durations = {"a": iter([9.0, 0.0, 1.0, 2.0, 3.0]), "b": iter([5.0, 0.0, 0.1, 0.1, 0.1])}
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])

    def engine(name):
        def forward(events):
            assert events.shape == (4, 10, 3)
            calls.append(name)
            clock[0] += next(durations[name])

        return forward

    found = measure({name: engine(name) for name in "ab"}, np.zeros((4, 10, 3), np.float32), num_runs=3)
    assert "".join(calls) == "aabb" + "ab" * 3
    a, b = found
    assert (a.engine, a.batch_size, a.num_elements, a.num_runs) == ("a", 4, 10, 3)
    assert (a.first_ms, a.p50_ms, a.p95_ms) == pytest.approx((9000, 2000, 2900))
    assert (a.events_per_second, b.events_per_second) == pytest.approx((2.0, 40.0))


def test_peak_memory_sees_what_a_pass_allocates():
    if not latency._reset_peak_memory():
        pytest.skip("this system does not tell")

    def forward(_):
        np.ones(200_000_000 // 8).sum()

    def small(_):
        np.ones(10).sum()

    large, little = measure({"large": forward, "small": small}, np.zeros((1, 1, 1), np.float32), 2)
    assert large.peak_memory_mb - little.peak_memory_mb == pytest.approx(200, abs=60)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_exponent_of_a_power_law(power):
    points = [at("x", n, 3e-3 * n**power) for n in (512, 1024, 4096)] + [at("x", 64, 500.0)]
    assert scaling_exponents(points) == {("x", 1): pytest.approx(power)}


def test_no_exponent_from_one_size():
    assert scaling_exponents([at("x", 512, 1.0), at("x", 128, 0.1), at("x", 1024, 1.0, batch_size=2)]) == {}
