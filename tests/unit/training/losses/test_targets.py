import numpy as np
import pytest

from mlpf.physics.features import NUM_CLIC_FEATURES, TARGETS, TRACK_FEATURES
from mlpf.physics.schemas import SCHEMAS
from mlpf.training.losses.targets import ELEMENT_PT, element_pt, split_targets


def test_particles_are_real_elements_with_a_class():
    y = np.zeros((1, 4, len(TARGETS)), np.float32)
    y[0, :, TARGETS.index("cls")] = [1, 0, 3, 1]
    y[0, :, TARGETS.index("jet_idx")] = [2, 2, -1, 1]
    elements = np.array([[True, True, True, False]])

    targets = split_targets(elements, y)

    assert targets.elements is elements
    assert np.array(targets.particles).tolist() == [[True, False, True, False]]
    assert np.array(targets.jets).tolist() == [[2, 0, 0, 0]]


def test_measured_pt_is_never_negative():
    X = np.zeros((1, 2, NUM_CLIC_FEATURES), np.float32)
    X[0, :, TRACK_FEATURES.index("pt")] = [3.0, -1.0]

    assert np.array(element_pt(X)).tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize("kind", [kind for schema in SCHEMAS.values() for kind in schema.kinds])
def test_pt_is_at_the_same_place_in_every_kind_of_element(kind):
    assert kind.features.names[ELEMENT_PT] in ("pt", "et")


def test_charges_become_places_and_are_limited_to_one():
    y = np.zeros((1, 4, len(TARGETS)), np.float32)
    y[0, :, TARGETS.index("cls")] = 1
    y[0, :, TARGETS.index("charge")] = [-2, -1, 0, 1]

    assert np.array(split_targets(np.ones((1, 4), bool), y).charge).tolist() == [[0, 0, 1, 2]]


def test_regression_targets_vanish_without_a_particle():
    y = np.ones((1, 2, len(TARGETS)), np.float32)
    y[0, 1, TARGETS.index("cls")] = 0

    targets = split_targets(np.ones((1, 2), bool), y)

    assert np.array(targets.kinematics["energy"]).tolist() == [[[1.0], [0.0]]]
    assert np.array(targets.cls).tolist() == [[1, 0]]
