from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlpf.data.dataset.examples import SPLITS, jet_ranks, split_files, split_of_file
from mlpf.errors import DataError
from mlpf.physics.features import PARTICLE_COLUMNS

FRACTIONS = (0.8, 0.1, 0.1)


def rows(*particles):
    """Rows of (cls, pt, eta, phi, energy)."""
    out = [(kind, 0.0, pt, eta, np.sin(phi), np.cos(phi), energy) for kind, pt, eta, phi, energy in particles]
    return np.array(out, dtype=np.float32).reshape(-1, len(PARTICLE_COLUMNS))


def test_a_file_stays_in_its_split_whatever_other_files_there_are():
    files = [Path(f"a/reco_{i}.parquet") for i in range(200)]
    all_files = split_files(files, 0, FRACTIONS)
    half = split_files([Path("b") / f.name for f in files[:100]], 0, FRACTIONS)
    for name in SPLITS:
        assert {f.name for f in half[name]} <= {f.name for f in all_files[name]}


def test_splits_have_the_sizes_asked_for_and_depend_on_the_seed():
    names = [f"reco_{i}" for i in range(4000)]
    first = [split_of_file(n, 0, FRACTIONS) for n in names]
    counts = Counter(first)
    assert counts["train"] / 4000 == pytest.approx(0.8, abs=0.03)  # five standard deviations
    assert counts["valid"] / 4000 == pytest.approx(0.1, abs=0.03)
    assert first != [split_of_file(n, 1, FRACTIONS) for n in names]


def test_a_split_of_fraction_zero_is_left_out():
    files = [Path(f"reco_{i}.parquet") for i in range(50)]
    assert set(split_files(files, 0, (0.5, 0.0, 0.5))) == {"train", "test"}


def test_an_empty_split_suggests_a_seed_that_works():
    files = [Path(f"reco_{i}.parquet") for i in range(4)]
    all_in_one = next(s for s in range(100) if len({split_of_file(f.stem, s, FRACTIONS) for f in files}) == 1)
    with pytest.raises(DataError, match=r"first that works: \d+") as caught:
        split_files(files, all_in_one, FRACTIONS)
    seed = int(str(caught.value).rsplit(" ", 1)[1].rstrip(")"))
    assert all(split_files(files, seed, FRACTIONS).values())


def test_jets_are_numbered_by_falling_pt_and_elements_without_particle_have_none():
    targets = rows(
        (0, 0.0, 0.0, 0.0, 0.0),  # nothing here: numbering must not shift
        (1, 10.0, 0.0, 0.0, 10.0),
        (3, 30.0, 0.0, 3.0, 30.0),
        (3, 5.0, 0.0, 0.05, 5.0),
        (2, 1.0, 3.0, 1.5, 10.1),  # a jet below 5 GeV is none
    )
    assert jet_ranks(np.array([5]), targets).tolist() == [0, 2, 1, 2, 0]
    both = np.concatenate([targets, targets[2:4]])  # a second event, whose ranks start again
    assert jet_ranks(np.array([5, 0, 2]), both).tolist() == [0, 2, 1, 2, 0, 1, 2]


def test_events_without_particles_have_no_jets():
    assert jet_ranks(np.array([1]), rows((0, 0, 0, 0, 0))).tolist() == [0]
    assert jet_ranks(np.array([0, 0]), rows()).tolist() == []
