import numpy as np
import pytest

from mlpf.physics.features import ELEMTYPE_CLUSTER, ELEMTYPE_TRACK
from mlpf.physics.particles import (
    CHARGED_HADRON,
    CLASS_INDEX,
    CLASSES,
    ELECTRON,
    MUON,
    NEUTRAL_HADRON,
    NONE,
    PHOTON,
    class_from_pdg,
    class_on_element,
)

EVERY = [NONE, CHARGED_HADRON, NEUTRAL_HADRON, PHOTON, ELECTRON, MUON]


def test_names_of_classes_are_their_positions():
    assert EVERY == [particle.index for particle in CLASSES] == list(range(6))
    assert (CLASS_INDEX["photon"], CLASS_INDEX["muon"]) == (PHOTON, MUON)


@pytest.mark.parametrize(
    ("pdg", "charge", "cls"),
    [
        (0, 0.0, NONE),
        (0, 1.0, NONE),
        (22, 0.0, PHOTON),
        (11, -1.0, ELECTRON),
        (-11, 1.0, ELECTRON),
        (-13, 1.0, MUON),
        (211, 1.0, CHARGED_HADRON),
        (-3112, -1.0, CHARGED_HADRON),
        (2112, 0.0, NEUTRAL_HADRON),
        (130, 0.0, NEUTRAL_HADRON),
        (1000020040, 2.0, CHARGED_HADRON),
        (15, -1.0, CHARGED_HADRON),
    ],
)
def test_class_of_a_particle(pdg, charge, cls):
    assert class_from_pdg(np.array(pdg, np.int32), np.array(charge)) == cls


def test_classes_keep_the_shape():
    found = class_from_pdg(np.array([[22, 211], [0, 130]]), np.array([[0, 1.0], [0, 0]]))
    assert found.tolist() == [[PHOTON, CHARGED_HADRON], [NONE, NEUTRAL_HADRON]]
    assert found.dtype == np.int64


def test_a_class_of_its_own_pdg_code_is_that_class():
    charge = np.array([0.0, 1.0, 0.0, 0.0, -1.0, -1.0])
    assert class_from_pdg(np.array([c.pdg for c in CLASSES]), charge).tolist() == EVERY


def test_what_an_element_carries():
    on_track = class_on_element(np.array(EVERY), ELEMTYPE_TRACK)
    assert on_track.tolist() == [NONE, CHARGED_HADRON, CHARGED_HADRON, CHARGED_HADRON, ELECTRON, MUON]
    on_cluster = class_on_element(np.array(EVERY), ELEMTYPE_CLUSTER)
    assert on_cluster.tolist() == [
        NONE,
        NEUTRAL_HADRON,
        NEUTRAL_HADRON,
        PHOTON,
        PHOTON,
        NEUTRAL_HADRON,
    ]
    with pytest.raises(ValueError, match="elemtype=3, expected 1"):
        class_on_element(np.array(EVERY), 3)
