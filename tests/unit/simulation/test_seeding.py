import pytest

from mlpf.simulation.seeding import Stage, event_rng, pythia_seed


def test_streams_repeat_and_differ_in_every_argument() -> None:
    def first(seed: int, sample: str, event: int, stage: Stage) -> float:
        return float(event_rng(seed, sample, event, stage).random())

    reference = first(1, "ttbar", 17, Stage.TRACKS)
    assert first(1, "ttbar", 17, Stage.TRACKS) == reference
    others = [
        first(2, "ttbar", 17, Stage.TRACKS),
        first(1, "qq", 17, Stage.TRACKS),
        first(1, "ttbar", 18, Stage.TRACKS),
        first(1, "ttbar", 17, Stage.SHOWERS),
    ]
    assert reference not in others
    assert len(set(others)) == len(others)


def test_generator_seeds_of_a_sample_never_repeat() -> None:
    seeds = {pythia_seed(1, "ttbar", event) for event in range(10_000)}
    assert len(seeds) == 10_000


@pytest.mark.parametrize("event", [0, 10**9, 10**12])
def test_generator_seeds_stay_in_the_range_of_pythia(event: int) -> None:
    assert 1 <= pythia_seed(12345, "qq", event) < 900_000_000
