"""Against the output of the reference's own postprocessing (v1.6.2), where that is at hand."""

from pathlib import Path

import numpy as np
import pytest

from mlpf.data.edm4hep.features import cluster_features, track_features
from mlpf.data.edm4hep.truth import candidate_targets, gen_targets, link_truth
from mlpf.physics.features import PARTICLE_COLUMNS
from mlpf.physics.particles import CLASSES
from tests.support.conversions import read_edm4hep

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
ROOT = FOLDER / "clic_ttbar_30.root"
REFERENCE = FOLDER / "clic_ttbar_30_reference.npz"
pytestmark = pytest.mark.skipif(not ROOT.is_file(), reason="the reference's files are not at hand")

CLS, ENERGY = PARTICLE_COLUMNS.index("cls"), PARTICLE_COLUMNS.index("energy")
CLASS_OF_PDG = {particle.pdg: particle.index for particle in CLASSES}
# Relative to the value, or to 0.01 for directions near zero: the reference works in float32.
RELATIVE, FLOOR = 1e-4, 1e-2


@pytest.fixture(scope="module")
def raw():
    (chunk,) = read_edm4hep(ROOT)
    return chunk


def with_class(particles):
    """The reference has the PDG code of the class in column 0."""
    out = particles.copy()
    out[:, CLS] = [CLASS_OF_PDG[int(pdg)] for pdg in particles[:, CLS]]
    return out


def differing_rows(ours, reference):
    difference = np.abs(ours - reference) / np.maximum(np.abs(reference), FLOOR)
    return np.flatnonzero((difference > RELATIVE).any(axis=1))


def test_features_agree(raw):
    with np.load(REFERENCE, allow_pickle=False) as reference:
        assert len(differing_rows(track_features(raw)[0], reference["X_track"])) == 0
        assert len(differing_rows(cluster_features(raw)[0], reference["X_cluster"])) == 0


def test_candidates_agree(raw):
    track, cluster, _ = candidate_targets(raw)
    with np.load(REFERENCE, allow_pickle=False) as reference:
        assert len(differing_rows(track, with_class(reference["ycand_track"]))) == 0
        assert len(differing_rows(cluster, with_class(reference["ycand_cluster"]))) == 0


def test_targets_differ_only_where_several_particles_merge_into_one(raw):
    links = link_truth(raw)
    targets = gen_targets(raw, links)
    with np.load(REFERENCE, allow_pickle=False) as reference:
        assert len(differing_rows(targets.track, with_class(reference["ygen_track"]))) == 0
        theirs = with_class(reference["ygen_cluster"])
        rows = differing_rows(targets.element, theirs)
        found = theirs[rows]
    assert len(rows) == 4
    owner_of = {int(c): p for p, c in enumerate(targets.element_of) if c >= 0}
    for row, theirs in zip(rows, found, strict=True):
        owner = owner_of[int(row)]
        guests = np.flatnonzero(targets.merged_into == owner)
        assert len(guests) > 1
        # The reference keeps the last of the guests only.
        last = links.energy[owner] + links.energy[guests]
        assert np.abs(last - theirs[ENERGY]).min() < 1e-4
        assert targets.element[row, ENERGY] == pytest.approx(links.energy[[owner, *guests]].sum(), abs=1e-6)
