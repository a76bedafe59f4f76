import numpy as np
import pytest

from mlpf.physics.features import NUM_CLIC_FEATURES, TARGETS, TRACK_FEATURES
from mlpf.physics.schemas import SCHEMAS
from mlpf.training.losses.targets import (
    ELEMENT_PT,
    ELEMTYPE,
    element_mask,
    element_pt,
    particle_mask,
    split_targets,
)


def test_masks_separate_padding_elements_and_particles():
    X = np.zeros((1, 3, NUM_CLIC_FEATURES), np.float32)
    y = np.zeros((1, 3, len(TARGETS)), np.float32)
    X[0, :2, TRACK_FEATURES.index("elemtype")] = [1, 2]
    X[0, :2, TRACK_FEATURES.index("pt")] = [3.0, -1.0]
    y[0, 0, TARGETS.index("cls")] = 1

    assert np.array(element_mask(X)).tolist() == [[True, True, False]]
    assert np.array(particle_mask(X, y)).tolist() == [[True, False, False]]
    assert np.array(element_pt(X)).tolist() == [[3.0, 0.0, 0.0]]


@pytest.mark.parametrize("kind", [kind for schema in SCHEMAS.values() for kind in schema.kinds])
def test_type_and_pt_are_at_the_same_place_in_every_kind_of_element(kind):
    assert kind.features.names[ELEMTYPE] == "elemtype"
    assert kind.features.names[ELEMENT_PT] in ("pt", "et")


def test_charges_become_places_and_are_limited_to_one():
    y = np.zeros((1, 4, len(TARGETS)), np.float32)
    y[0, :, TARGETS.index("cls")] = 1
    y[0, :, TARGETS.index("charge")] = [-2, -1, 0, 1]

    assert np.array(split_targets(y)["charge"]).tolist() == [[0, 0, 1, 2]]


def test_regression_targets_vanish_without_a_particle():
    y = np.ones((1, 2, len(TARGETS)), np.float32)
    y[0, 1, TARGETS.index("cls")] = 0

    targets = split_targets(y)

    assert np.array(targets["energy"]).tolist() == [[[1.0], [0.0]]]
    assert np.array(targets["cls"]).tolist() == [[1, 0]]
