"""Hand-made Delphes events written as small ROOT files, and pickles in the published form."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from mlpf.data.delphes import reader as delphes_reader

PARTICLE = {"PID": "i4", "Charge": "i4", "PT": "f4", "Eta": "f4", "Phi": "f4", "E": "f4", "fUniqueID": "u4"}
TRACK = {
    "PT": "f4",
    "Eta": "f4",
    "Phi": "f4",
    "EtaOuter": "f4",
    "PhiOuter": "f4",
    "Charge": "i4",
    "Particle": "u4",
}
TOWER = {"ET": "f4", "Eta": "f4", "Phi": "f4", "E": "f4", "Eem": "f4", "Ehad": "f4", "Particles_size": "i4"}
CHARGED = {"PID": "i4", "Charge": "i4", "PT": "f4", "Eta": "f4", "Phi": "f4", "Particle": "u4"}
NEUTRAL = {"Eta": "f4", "Phi": "f4", "E": "f4"}
PF_BRANCHES = {
    "PFChargedHadron": CHARGED,
    "PFElectron": CHARGED,
    "PFMuon": CHARGED,
    "PFNeutralHadron": NEUTRAL,
    "PFPhoton": NEUTRAL,
}
EFLOW_BRANCHES = {"EFlowTrack": CHARGED, "EFlowNeutralHadron": NEUTRAL, "EFlowPhoton": NEUTRAL}


@dataclass
class HandDelphes:
    """One event. Particles are named by their unique id, which is never their position."""

    particles: list[dict] = field(default_factory=list)
    tracks: list[dict] = field(default_factory=list)
    towers: list[dict] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    candidates: dict[str, list[dict]] = field(default_factory=dict)

    def particle(self, pdg, charge, pt, eta=0.0, phi=0.0, energy=None) -> int:
        unique_id = 900 - 7 * len(self.particles)
        row = {"PID": pdg, "Charge": charge, "PT": pt, "Eta": eta, "Phi": phi, "fUniqueID": unique_id}
        self.particles.append({**row, "E": pt * np.cosh(eta) if energy is None else energy})
        return unique_id

    def track(self, particle, pt=1.0, eta=0.0, phi=0.0, charge=1, **leaves) -> None:
        row = {
            "PT": pt,
            "Eta": eta,
            "Phi": phi,
            "EtaOuter": eta + 0.1,
            "PhiOuter": phi + 0.2,
            "Charge": charge,
        }
        self.tracks.append({**row, "Particle": particle, **leaves})

    def tower(self, particles, eta=0.0, phi=0.0, em=1.0, had=0.0, **leaves) -> None:
        row = {"ET": (em + had) / np.cosh(eta), "Eta": eta, "Phi": phi, "E": em + had, "Eem": em, "Ehad": had}
        self.towers.append({**row, "Particles_size": len(particles), **leaves})
        self.members += particles

    def charged(self, branch, particle, pt=1.0, eta=0.0, phi=0.0, charge=1, pdg=211) -> None:
        row = {"PID": pdg, "Charge": charge, "PT": pt, "Eta": eta, "Phi": phi, "Particle": particle}
        self.candidates.setdefault(branch, []).append(row)

    def neutral(self, branch, energy, eta=0.0, phi=0.0) -> None:
        self.candidates.setdefault(branch, []).append({"Eta": eta, "Phi": phi, "E": energy})


def simple_delphes(pt=10.0) -> HandDelphes:
    """A pion with a track, and a photon in a tower; the baseline finds both."""
    event = HandDelphes()
    pion, photon = event.particle(211, 1, pt, 0.5, 1.0), event.particle(22, 0, 5.0, -1.0, 2.0)
    event.track(pion, pt * 1.01, 0.5, 1.0)
    event.tower([pion, photon], -1.0, 2.0, em=5.5)
    event.charged("PFChargedHadron", pion, pt * 1.01, 0.5, 1.0)
    event.neutral("PFPhoton", 5.5, -1.0, 2.0)
    return event


def branch_arrays(events, particle_branch="PileUpMix", candidates=PF_BRANCHES) -> dict[str, dict[str, list]]:
    """Return branch -> leaf -> list per event."""
    tables = {
        particle_branch: (PARTICLE, [e.particles for e in events]),
        "Track": (TRACK, [e.tracks for e in events]),
        "Tower": (TOWER, [e.towers for e in events]),
        "TowerParticles": ({"ref": "u4"}, [[{"ref": m} for m in e.members] for e in events]),
        **{
            name: (leaves, [e.candidates.get(name, []) for e in events])
            for name, leaves in candidates.items()
        },
    }
    return {
        branch: {
            leaf: [np.array([row[leaf] for row in rows], dtype=kind) for rows in lists]
            for leaf, kind in leaves.items()
        }
        for branch, (leaves, lists) in tables.items()
    }


def write_delphes(path, events, drop=(), **options):
    """Write events; ``drop`` names branches and leaves (``Track.PT``) to leave out."""
    arrays = {}
    for branch, leaves in branch_arrays(events, **options).items():
        kept = {leaf: values for leaf, values in leaves.items() if f"{branch}.{leaf}" not in drop}
        if branch in drop or not kept:
            continue
        counts = [len(values) for values in next(iter(kept.values()))]
        arrays[branch] = ak.unflatten(
            ak.Array({leaf: np.concatenate(values) for leaf, values in kept.items()}), counts
        )
    with uproot.recreate(path) as file:
        tree = file.mktree(
            "Delphes",
            {name: array.type.content for name, array in arrays.items()},
            counter_name=lambda name: f"{name}_size",
            field_name=lambda branch, leaf: f"{branch}.{leaf}",
        )
        tree.extend(arrays)
    return path


class MemoryLeaf:
    """Presents values as uproot presents a leaf."""

    def __init__(self, values):
        self.values = values

    def array(self, entry_start, entry_stop, **_):
        return self.values[entry_start:entry_stop]


def memory_tree(events):
    """Leaves as uproot presents those of a file that Delphes wrote, with TRef and TRefArray."""
    leaves = {
        f"{branch}.{leaf}": ak.unflatten(np.concatenate(values), [len(v) for v in values])
        for branch, columns in branch_arrays(events).items()
        for leaf, values in columns.items()
    }
    sizes = leaves.pop("Tower.Particles_size")
    refs = ak.unflatten(ak.flatten(leaves.pop("TowerParticles.ref")), ak.flatten(sizes))
    lists = ak.zip({"fSize": ak.flatten(sizes), "refs": refs}, depth_limit=1)
    leaves["Tower.Particles"] = ak.unflatten(lists, ak.num(sizes))
    for name in [name for name in leaves if name.endswith(".Particle")]:
        leaves[name] = ak.zip({"@pidf": ak.zeros_like(leaves[name]), "ref": leaves[name]})
    return {name: MemoryLeaf(values) for name, values in leaves.items()}


def read_memory(tree, num_events):
    """Read what ``memory_tree`` returns without a file."""
    found = delphes_reader._discover(Path("memory"), set(tree))
    return delphes_reader._Chunk(tree, set(tree), 0, num_events).read(found)


def published_event(ygen=(), ycand=(), kinds=None) -> dict[str, np.ndarray]:
    """One event in the published form: rows of ygen and ycand as given, X of the given element types."""
    kinds = [2] * len(ygen) if kinds is None else kinds
    x = np.zeros((len(kinds), 12))
    x[:, 0] = kinds
    x[:, 1] = 1.0 + np.arange(len(kinds))
    ygen = np.array(ygen, dtype=float).reshape(-1, 7)
    ycand = np.array(ycand, dtype=float).reshape(-1, 7) if len(ycand) else np.zeros_like(ygen)
    return {"X": x, "ygen": ygen, "ycand": ycand}


def write_pickle(path, events, protocol=3):
    """Write events of ``published_event`` to an uncompressed pickle."""
    content = {key: [event[key] for event in events] for key in ("X", "ygen", "ycand")}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path
