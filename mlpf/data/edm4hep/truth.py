"""Truth: the target particle of each element, and the particles that are on no element.

Elements are tracks, and clusters or hits. "Element" below means a cluster or a hit.
Rules (each repairs a defect of the reference's algorithm, J. Pata et al., v1.6):

1. Only stable generator particles (status 1, no neutrinos) count. Links of secondaries go to their stable
   ancestor when the file has parent references.
2. The weight of a hit link is a fraction: it is normalised per hit and multiplied by the hit's energy.
3. Greedy, by decreasing energy: a track goes to a charged particle that made at least half of it or more of
   it than any other; otherwise the particle takes the free element that holds most of its energy.
4. A remaining particle is added, by running four-momentum sums, to the owner of its best element.
5. Particles without deposit in elements are counted as lost, and so are those without a visible signal.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mlpf.data.edm4hep.greedy_assignment import choose_in_turn, leading_rows
from mlpf.data.edm4hep.raw_events import RawEvents
from mlpf.data.flat_tables import BoolArray, FloatArray, IntArray, Relation, Table
from mlpf.physics.features import ELEMTYPE_CLUSTER, ELEMTYPE_TRACK, PARTICLE_COLUMNS
from mlpf.physics.kinematics import eta_from_momentum
from mlpf.physics.particles import class_from_pdg, class_on_element, is_invisible

TRUTH_VERSION = "1.0.0"
STATUS_STABLE = 1
MIN_TRACK_WEIGHT_VISIBLE = 0.6
MIN_DEPOSIT_FRACTION = 0.1
MIN_ENERGY_GEV = 0.01
# With at least half of the hits no other particle can claim more.
MIN_TRACK_WEIGHT = 0.5
# Generator records are less deep; this also ends a cycle of parents.
MAX_GENERATIONS = 200


@dataclass(frozen=True)
class TruthLinks:
    """Links of a chunk in terms of stable particles (P rows of the particle table).

    Attributes:
        stable: [P] True for stable visible-species particles, also outside acceptance.
        energy: [P] sqrt(p^2 + m^2) in GeV.
        track_weight: [P, T] fraction of each track's hits.
        hit_energy: [P, H] energy of each hit in GeV.
        cluster_energy: [P, K] energy in each cluster in GeV.
        element_energy: ``hit_energy`` or ``cluster_energy``, with a column for each element.
        counters: links that could not be attributed.
    """

    stable: BoolArray
    energy: FloatArray
    track_weight: sparse.csr_array
    hit_energy: sparse.csr_array
    cluster_energy: sparse.csr_array
    element_energy: sparse.csr_array
    counters: Counter[str]


@dataclass(frozen=True)
class Targets:
    """Targets and losses of a chunk.

    Attributes:
        track, element: [T, 7], [K or H, 7] ``PARTICLE_COLUMNS``.
        lost_energy, lost_charge, num_lost: [E] losses, which are on no target (GeV, e, particles).
        track_of, element_of, merged_into: [P] row of the track, element or owner, -1 = none.
        counters: unusual cases by name.
    """

    track: npt.NDArray[np.float64]
    element: npt.NDArray[np.float64]
    lost_energy: FloatArray
    lost_charge: FloatArray
    num_lost: IntArray
    track_of: IntArray
    element_of: IntArray
    merged_into: IntArray
    counters: Counter[str]


def energy_of(particles: Table) -> FloatArray:
    """Return sqrt(p^2 + m^2) in GeV, [P]."""
    components = [particles[name].astype(np.float64) for name in ("px", "py", "pz", "mass")]
    return np.sqrt(sum(c**2 for c in components))


def target_rows(
    cls: npt.NDArray,
    charge: npt.NDArray,
    px: npt.NDArray,
    py: npt.NDArray,
    pz: npt.NDArray,
    energy: npt.NDArray,
) -> npt.NDArray[np.float64]:
    """Stack rows of ``PARTICLE_COLUMNS``, [n, 7], from class indices and four-momenta in GeV."""
    pt = np.hypot(px, py)
    safe = np.where(pt > 0, pt, 1.0)
    return PARTICLE_COLUMNS.stack(
        {
            "cls": cls,
            "charge": charge,
            "pt": pt,
            "eta": eta_from_momentum(px, py, pz),
            "sin_phi": py / safe,
            "cos_phi": np.where(pt > 0, px / safe, 1.0),
            "energy": energy,
        }
    )


def stable_owner(particles: Table) -> IntArray:
    """Return the row of the stable ancestor of each particle (or of itself), -1 = none, [P]."""
    stable = particles["status"] == STATUS_STABLE
    parent = particles["parent"]
    owner = np.arange(len(particles))
    for _ in range(MAX_GENERATIONS):
        climbing = (owner >= 0) & ~stable[owner]
        if not climbing.any():
            break
        owner = np.where(climbing, parent[owner], owner)
    return np.where((owner >= 0) & stable[owner], owner, -1)


def elements_of(raw: RawEvents, kind: str) -> Table:
    """Return the table of the elements besides tracks.

    Args:
        raw: the chunk.
        kind: "cluster" or "hit", as the schema calls them.

    Raises:
        ValueError: another kind.
    """
    if kind not in ("cluster", "hit"):
        raise ValueError(f"kind of element {kind!r}, expected 'cluster' or 'hit'")
    return raw.clusters if kind == "cluster" else raw.hits


def link_truth(raw: RawEvents, kind: str = "cluster") -> TruthLinks:
    """Attribute tracks, hits and clusters to stable particles (rules 1 and 2).

    Args:
        raw: the chunk.
        kind: what the elements are, "cluster" or "hit".

    Raises:
        ValueError: another kind.
    """
    particles, counters = raw.particles, Counter[str]()
    stable = (particles["status"] == STATUS_STABLE) & ~is_invisible(particles["pdg"])
    owner = stable_owner(particles)
    owner = np.where((owner >= 0) & stable[owner], owner, -1) if len(owner) else owner

    hit_links = raw.hit_particles
    weight = np.maximum(hit_links.weight, 0.0)
    total = np.bincount(hit_links.source, weight, minlength=len(raw.hits))
    scale = np.divide(raw.hits["energy"], total, out=np.zeros(len(total)), where=total > 0)
    shares = Relation(hit_links.source, hit_links.target, weight * scale[hit_links.source])
    hit_energy = _by_owner(shares, owner, len(raw.hits), "hit links without stable particle", counters)
    members = sparse.csr_array(
        (raw.cluster_hits.weight, (raw.cluster_hits.target, raw.cluster_hits.source)),
        shape=(len(raw.hits), len(raw.clusters)),
    )
    tracks = raw.track_particles
    track_weight = _by_owner(
        Relation(tracks.source, tracks.target, np.maximum(tracks.weight, 0.0)),
        owner,
        len(raw.tracks),
        "track links without stable particle",
        counters,
    )
    cluster_energy = sparse.csr_array(hit_energy @ members)
    element_energy = cluster_energy if elements_of(raw, kind) is raw.clusters else hit_energy
    return TruthLinks(
        stable,
        energy_of(particles),
        track_weight,
        hit_energy,
        cluster_energy,
        element_energy,
        counters,
    )


def _by_owner(
    links: Relation, owner: IntArray, num_sources: int, lost: str, counters: Counter[str]
) -> sparse.csr_array:
    """Sum the weights of links by (owner, source), [P, sources]; zero weights leave no entry."""
    row = owner[links.target]
    counters[lost] += int((row < 0).sum())
    keep = (row >= 0) & (links.weight > 0)
    entries = (links.weight[keep], (row[keep], links.source[keep]))
    return sparse.csr_array(entries, shape=(len(owner), num_sources))


def visible_particles(links: TruthLinks) -> BoolArray:
    """Return [P] True for stable particles with a track or enough of their energy in elements."""
    in_tracker = _row_maximum(links.track_weight) >= MIN_TRACK_WEIGHT_VISIBLE
    deposit = np.asarray(links.element_energy.sum(axis=1)).ravel()
    in_calorimeter = deposit > MIN_DEPOSIT_FRACTION * links.energy
    return links.stable & (links.energy > MIN_ENERGY_GEV) & (in_tracker | in_calorimeter)


def _row_maximum(matrix: sparse.csr_array) -> FloatArray:
    best = np.zeros(matrix.shape[0])
    entries = matrix.tocoo()
    np.maximum.at(best, entries.row, entries.data)
    return best


def track_claims(links: TruthLinks, charge: npt.NDArray) -> sparse.coo_array:
    """Return the entries of ``track_weight`` that allow a particle to take a track (rule 3).

    Args:
        links: links of the chunk.
        charge: [P] in e.
    """
    entries = links.track_weight.tocoo()
    best = np.zeros(links.track_weight.shape[1])
    np.maximum.at(best, entries.col, entries.data)
    keep = (entries.data >= MIN_TRACK_WEIGHT) | (entries.data >= best[entries.col])
    keep &= np.abs(charge[entries.row]) > 0
    return sparse.coo_array((entries.data[keep], (entries.row[keep], entries.col[keep])), shape=entries.shape)


def assign_elements(links: TruthLinks, charge: npt.NDArray) -> tuple[IntArray, IntArray, IntArray]:
    """Give each visible particle one element, or an owner to merge into (rules 3 and 4).

    Args:
        links: the chunk's links.
        charge: [P] in e.

    Returns:
        ``track_of``, ``element_of``, ``merged_into``, each [P], -1 = none.
    """
    visible = np.flatnonzero(visible_particles(links))
    queue = visible[np.argsort(-links.energy[visible], kind="stable")]
    track_of = choose_in_turn(track_claims(links, charge), queue)
    queue = queue[track_of[queue] < 0]
    deposits = links.element_energy.tocoo()
    element_of = choose_in_turn(deposits, queue)

    left = np.zeros(len(charge), dtype=bool)
    left[queue[element_of[queue] < 0]] = True
    owners = np.flatnonzero(element_of >= 0)
    owner = np.full(deposits.shape[1], -1, dtype=np.int64)
    owner[element_of[owners]] = owners
    # All elements of a remaining particle are taken, so its best one has an owner.
    keep = left[deposits.row]
    best = leading_rows(deposits.col[keep], deposits.row[keep], deposits.data[keep], len(charge))
    merged = np.full(len(charge), -1, dtype=np.int64)
    merged[best >= 0] = owner[best[best >= 0]]
    return track_of, element_of, merged


def gen_targets(raw: RawEvents, links: TruthLinks) -> Targets:
    """Compute the targets of all elements and the losses (rules 3 to 5).

    Closure, per event: energy and charge of all ``links.stable`` particles equal the sums over the targets
    plus ``lost_energy`` and ``lost_charge``. The charge of a particle on an element counts as lost, because
    its target is neutral.
    """
    particles, num_events = raw.particles, len(raw)
    charge = particles["charge"].astype(np.float64)
    track_of, element_of, merged = assign_elements(links, charge)
    momentum = np.stack([particles[n].astype(np.float64) for n in ("px", "py", "pz")] + [links.energy])
    guests = np.flatnonzero(merged >= 0)
    own = momentum.copy()
    for component in range(4):
        np.add.at(own[component], merged[guests], momentum[component, guests])

    cls = class_from_pdg(particles["pdg"], charge)
    on_track, on_element = np.flatnonzero(track_of >= 0), np.flatnonzero(element_of >= 0)
    track = np.zeros((len(raw.tracks), len(PARTICLE_COLUMNS)))
    track[track_of[on_track]] = target_rows(
        class_on_element(cls[on_track], ELEMTYPE_TRACK), charge[on_track], *own[:, on_track]
    )
    element = np.zeros((links.element_energy.shape[1], len(PARTICLE_COLUMNS)))
    element[element_of[on_element]] = target_rows(
        class_on_element(cls[on_element], ELEMTYPE_CLUSTER), np.zeros(len(on_element)), *own[:, on_element]
    )
    lost = links.stable & (track_of < 0) & (element_of < 0) & (merged < 0)
    event = particles.event
    return Targets(
        track,
        element,
        np.bincount(event, links.energy * lost, minlength=num_events).astype(np.float64),
        np.bincount(event, charge * (links.stable & (track_of < 0)), minlength=num_events).astype(np.float64),
        np.bincount(event, lost, minlength=num_events).astype(np.int64),
        track_of,
        element_of,
        merged,
        Counter({"particles merged into another": len(guests), "particles lost": int(lost.sum())}),
    )


def candidate_targets(
    raw: RawEvents, kind: str = "cluster"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Counter[str]]:
    """Put each baseline candidate on its first track, or without a track on its first cluster.

    In sets of hits the hit of highest energy replaces the cluster. Candidates of type 0 are
    ignored. Two candidates on one element add up; the first gives class and charge.

    Args:
        raw: the chunk.
        kind: what the elements are, "cluster" or "hit".

    Returns:
        [T, 7], [K or H, 7] ``PARTICLE_COLUMNS``, and counters.

    Raises:
        ValueError: another kind.
    """
    candidates, counters = raw.candidates, Counter[str]()
    charge = candidates["charge"].astype(np.float64)
    pdg = np.abs(candidates["pdg"].astype(np.int64))
    cls = class_from_pdg(pdg, charge)
    momentum = np.stack(
        [candidates[n].astype(np.float64) for n in ("px", "py", "pz")] + [energy_of(candidates)]
    )
    elements = elements_of(raw, kind)
    first_track, several_tracks = _first_target(raw.candidate_tracks, len(candidates))
    first_element, several_clusters = _first_target(raw.candidate_clusters, len(candidates))
    if elements is raw.hits:
        first_element = _highest_hit(raw, first_element)
    real = pdg != 0
    on_track = np.flatnonzero(real & (first_track >= 0))
    on_element = np.flatnonzero(real & (first_track < 0) & (first_element >= 0))
    counters["candidates without element"] += int((real & (first_track < 0) & (first_element < 0)).sum())
    counters["candidates with several elements"] += int(
        (real & (several_tracks | ((first_track < 0) & several_clusters))).sum()
    )
    out = []
    for rows, element, elemtype, num in (
        (on_track, first_track[on_track], ELEMTYPE_TRACK, len(raw.tracks)),
        (on_element, first_element[on_element], ELEMTYPE_CLUSTER, len(elements)),
    ):
        used, first, place = np.unique(element, return_index=True, return_inverse=True)
        counters["candidates sharing an element"] += len(element) - len(used)
        sums = np.stack([np.bincount(place, momentum[i, rows], minlength=len(used)) for i in range(4)])
        chosen = rows[first]
        element_charge = charge[chosen] if elemtype == ELEMTYPE_TRACK else np.zeros(len(chosen))
        target = np.zeros((num, len(PARTICLE_COLUMNS)))
        target[used] = target_rows(class_on_element(cls[chosen], elemtype), element_charge, *sums)
        out.append(target)
    return out[0], out[1], counters


def _highest_hit(raw: RawEvents, cluster: IntArray) -> IntArray:
    """Return the hit of highest energy of each cluster [n]; -1 for cluster -1 or without hits."""
    members = raw.cluster_hits
    energy = raw.hits["energy"][members.target].astype(np.float64)
    highest = leading_rows(members.target, members.source, energy, len(raw.clusters))
    hit = np.full(len(cluster), -1, dtype=np.int64)
    hit[cluster >= 0] = highest[cluster[cluster >= 0]]
    return hit


def _first_target(relation: Relation, num_sources: int) -> tuple[IntArray, BoolArray]:
    """Return the first target of each source (-1 = none), and whether it has several; links in file order."""
    first = np.full(num_sources, -1, dtype=np.int64)
    source, place = np.unique(relation.source, return_index=True)
    first[source] = relation.target[place]
    return first, np.bincount(relation.source, minlength=num_sources) > 1
