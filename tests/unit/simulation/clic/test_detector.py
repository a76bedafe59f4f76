"""What follows from another description of the detector."""

from dataclasses import replace

import numpy as np
import pytest

from mlpf.config import detector as description
from mlpf.data.edm4hep.collection_ids import murmur3_32
from mlpf.errors import ConfigError
from mlpf.simulation.clic.baseline_matching import cluster_shapes
from mlpf.simulation.clic.clustering import cluster_hits
from mlpf.simulation.clic.detector import CLIC, build_detector
from mlpf.simulation.clic.edm4hep_layouts import LAYOUT_NAMES, LAYOUTS
from mlpf.simulation.clic.edm4hep_names import layout_for
from mlpf.simulation.clic.generator import decays_inside
from mlpf.simulation.clic.propagation import propagate
from mlpf.simulation.clic.showers import shower_spots
from mlpf.simulation.clic.tracker import reconstruct_tracks
from tests.support.detector_hits import blob, make_hits
from tests.support.particles import single_particle

OWN_NAMES = description.CollectionsConfig(
    particles="P",
    tracks="T",
    clusters="C",
    candidates=["R"],
    hit_links="LH",
    track_links="LT",
    ecal_hits=["EB", "EE"],
    hcal_hits=["HB", "HE", "HO", "HX"],
    muon_hits=["M"],
)


def described(**changes):
    return description.CLIC.model_copy(update=changes)


def test_numbers_of_clic_are_those_of_its_description():
    assert (CLIC.field, CLIC.face_radius, CLIC.face_half_length) == (4.0, 1500.0, 2307.0)
    # of the muon system of CLIC_o3_v14, which follow from its two numbers
    assert (CLIC.muon.barrel_half_length, CLIC.muon.outer_radius) == (4179.0, 6450.0)
    assert decays_inside(CLIC)[1:] == ("ParticleDecays:xyMax=1500", "ParticleDecays:zMax=2300")


def test_a_description_for_data_only_cannot_be_simulated():
    with pytest.raises(ConfigError, match="has no section simulation, which mlpf simulate needs"):
        build_detector(described(simulation=None))
    one = description.CLIC.collections.model_copy(update={"ecal_hits": ["ECAL"]})
    with pytest.raises(ConfigError, match="name two ecal_hits, two hcal_hits and one of muon_hits"):
        build_detector(described(collections=one))


def test_hadrons_in_the_ecal_count_by_its_response():
    particles = single_particle(211, 20.0, charge=1.0, copies=50)
    half = replace(CLIC, ecal_hadron_response=0.4)
    spots, halved = (
        shower_spots(particles, propagate(particles, d), d, np.random.default_rng(1)) for d in (CLIC, half)
    )
    ecal = CLIC.depth(spots.x, spots.y, spots.z) < CLIC.ecal_depth
    ratio = halved.energy / spots.energy
    np.testing.assert_allclose(ratio[~ecal], 1.0)
    # electromagnetic spots are not scaled
    assert set(np.round(ratio[ecal], 9)) == {0.5, 1.0}


def test_the_rule_based_particle_flow_uses_the_same_response():
    hits = make_hits(
        ("ECALBarrel", blob((1600, 0, 0), 5.0), 0.1), ("HCALBarrel", blob((1800, 0, 0), 5.0), 0.1)
    )
    clusters = cluster_hits(hits, CLIC)
    ecal, hcal = clusters.energy_ecal, clusters.energy_hcal
    for response in (0.8, 0.5):
        shapes = cluster_shapes(hits, clusters, replace(CLIC, ecal_hadron_response=response))
        np.testing.assert_allclose(shapes.had_energy, ecal / response + hcal)


@pytest.mark.parametrize(("energy", "power"), [(0.5, 1), (2000.0, 2)])
def test_the_error_of_pt_grows_with_weaker_field_and_shorter_lever_arm(energy, power):
    """Multiple scattering with 1/(B R), measurement with 1/(B R^2)."""
    particles = single_particle(211, energy, charge=1.0, theta=np.pi / 2, copies=4000)
    small = replace(CLIC, field=2.0, face_radius=750.0)
    widths = []
    for detector in (CLIC, small):
        tracks = reconstruct_tracks(
            particles, propagate(particles, detector), detector, np.random.default_rng(1)
        )
        pt = detector.bending / np.abs(tracks.at_ip.omega)
        assert np.median(pt) == pytest.approx(np.sqrt(energy**2 - 0.13957**2), rel=0.01)
        low, high = np.quantile(1 / pt, (0.16, 0.84))
        widths.append(high - low)
    # The same random numbers; 3 %: the smaller of the two terms, and the tails.
    assert widths[1] / widths[0] == pytest.approx(2 * 2**power, rel=0.03)


@pytest.mark.parametrize("name", LAYOUT_NAMES)
def test_collections_get_the_names_of_the_detector(name):
    usual, own = LAYOUTS[name], layout_for(name, OWN_NAMES)
    same = layout_for(name, description.CLIC.collections)
    assert (same.ids, list(same.collections)) == (usual.ids, list(usual.collections))
    # SiTracks, the third hits of the ECAL: the detector has no such collections
    expected = {"P", "T", "C", "R", "LH", "LT", "EB", "EE", "HB", "HE", "HO", "M", "EventHeader"}
    data = {n for n in own.collections if "#" not in n and not n.startswith("_")}
    assert data - expected == ({"T_1"} if name == "old" else {"T_dQdx"})
    if name == "old":
        assert own.ids["R"] == usual.ids["MergedRecoParticles"]
        assert {"P#0", "T_1", "C#1", "LT#1"} <= own.collections.keys()
    else:
        assert own.ids["R"] == murmur3_32("R")
        assert {"_P_parents", "_T_trackStates", "_T_dQdx_track", "_LH_from"} <= own.collections.keys()
