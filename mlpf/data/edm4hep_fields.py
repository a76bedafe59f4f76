"""Where EDM4HEP keeps what we read: for every logical field the leaves to try, first that exists wins.

A new layout of podio is one more name per field. Source: EDM4HEP data model and podio branch names.
"""

from mlpf.data.tables import SYSTEM_ECAL, SYSTEM_HCAL, SYSTEM_OTHER

Fields = dict[str, tuple[str, ...]]


def _same_names(collection: str, *names: str) -> Fields:
    return {name: (f"{collection}.{name}",) for name in names}


def _vector(*bases: str) -> Fields:
    return {f"p{axis}": tuple(f"{b}.momentum.{axis}" for b in bases) for axis in "xyz"}


PARTICLE_FIELDS: Fields = {
    "pdg": ("MCParticles.PDG",),
    "status": ("MCParticles.generatorStatus",),
    **_same_names("MCParticles", "charge", "mass"),
    **_vector("MCParticles"),
}
# Optional as a whole: without them links of secondaries cannot be traced to a stable ancestor.
PARENT_FIELDS: Fields = {
    "begin": ("MCParticles.parents_begin",),
    "end": ("MCParticles.parents_end",),
}
PARENT_REFERENCES: Fields = {"index": ("MCParticles#0.index",)}
TRACK_FIELDS: Fields = _same_names(
    "SiTracks_Refitted",
    "type",
    "chi2",
    "ndf",
    "dEdx",
    "dEdxError",
    "radiusOfInnermostHit",
    "trackStates_begin",
)
STATE_NAMES = ("tanLambda", "D0", "phi", "omega", "Z0", "time")
# Older productions keep the states of the unrefitted tracks only.
STATE_FIELDS: Fields = {n: (f"SiTracks_Refitted_1.{n}", f"SiTracks_1.{n}") for n in STATE_NAMES}
CLUSTER_FIELDS: Fields = {
    **{axis: (f"PandoraClusters.position.{axis}",) for axis in "xyz"},
    **_same_names("PandoraClusters", "iTheta", "phi", "energy", "hits_begin", "hits_end"),
}
CLUSTER_HIT_REFERENCES: Fields = {
    "index": ("PandoraClusters#1.index",),
    "collection": ("PandoraClusters#1.collectionID",),
}
HIT_LINK_FIELDS: Fields = {
    "weight": ("CalohitMCTruthLink.weight",),
    "hit": ("CalohitMCTruthLink#0.index",),
    "collection": ("CalohitMCTruthLink#0.collectionID",),
    "particle": ("CalohitMCTruthLink#1.index",),
}
TRACK_LINK_FIELDS: Fields = {
    "weight": ("SiTracksMCTruthLink.weight",),
    "track": ("SiTracksMCTruthLink#0.index",),
    "particle": ("SiTracksMCTruthLink#1.index",),
}
CANDIDATE_FIELDS: Fields = {
    "pdg": ("MergedRecoParticles.type",),
    **_same_names("MergedRecoParticles", "charge", "mass"),
    **_vector("MergedRecoParticles"),
    **_same_names("MergedRecoParticles", "clusters_begin", "clusters_end", "tracks_begin", "tracks_end"),
}
CANDIDATE_CLUSTER_REFERENCES: Fields = {"index": ("MergedRecoParticles#0.index",)}
CANDIDATE_TRACK_REFERENCES: Fields = {"index": ("MergedRecoParticles#1.index",)}

# Zeros where a file lacks them: table and column -> what the counter of zeros is called.
OPTIONAL_TRACK_FIELDS = {"type": "tracks without type"}
OPTIONAL_HIT_FIELDS = {"time": "hits without time", "type": "hits without type"}

# Concatenated in this (alphabetical) order within each event.
HIT_SYSTEMS = {
    "ECALBarrel": SYSTEM_ECAL,
    "ECALEndcap": SYSTEM_ECAL,
    "ECALOther": SYSTEM_ECAL,
    "HCALBarrel": SYSTEM_HCAL,
    "HCALEndcap": SYSTEM_HCAL,
    "HCALOther": SYSTEM_HCAL,
    "MUON": SYSTEM_OTHER,
}
EXPECTED_COLLECTIONS = (
    "MCParticles",
    "SiTracks_Refitted",
    "SiTracks_Refitted_1 or SiTracks_1",
    "PandoraClusters",
    *HIT_SYSTEMS,
    "CalohitMCTruthLink",
    "SiTracksMCTruthLink",
    "MergedRecoParticles",
)


def hit_fields(collection: str) -> Fields:
    """Return the fields of one calorimeter hit collection."""
    position = {axis: (f"{collection}.position.{axis}",) for axis in "xyz"}
    return {**position, **_same_names(collection, "energy", "time", "type")}
