"""Particle classes: PDG code -> class index, and the classes that each kind of element may have.

Reference: section 1.6 of the MLPF data description (J. Pata et al., Commun. Phys. 7, 124, 2024).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.physics.features import ELEMTYPE_CLUSTER, ELEMTYPE_TRACK


@dataclass(frozen=True)
class ParticleClass:
    """One class of the network: index, PDG code, name, mass hypothesis in GeV."""

    index: int
    pdg: int
    name: str
    mass_gev: float


CLASSES = (
    ParticleClass(0, 0, "none", 0.0),
    ParticleClass(1, 211, "charged hadron", 0.13957),
    ParticleClass(2, 130, "neutral hadron", 0.49761),
    ParticleClass(3, 22, "photon", 0.0),
    ParticleClass(4, 11, "electron", 0.000511),
    ParticleClass(5, 13, "muon", 0.10566),
)
NUM_CLASSES = len(CLASSES)
CLASS_NAMES = tuple(c.name for c in CLASSES)
CLASS_INDEX = {c.name: c.index for c in CLASSES}
NONE, CHARGED_HADRON, NEUTRAL_HADRON, PHOTON, ELECTRON, MUON = (c.index for c in CLASSES)

# No signal in the detector: electron, muon and tau neutrinos, either sign.
NEUTRINOS = (12, 14, 16)


def is_invisible(pdg: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Return True for neutrinos and antineutrinos. ``pdg``: any shape."""
    return np.isin(np.abs(pdg), NEUTRINOS)


def class_from_pdg(pdg: npt.NDArray[np.integer], charge: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Map PDG codes to class indices.

    Photons, electrons and muons have their own classes. All other particles are charged or neutral hadrons.

    Args:
        pdg: any shape, signed PDG codes; 0 = no particle.
        charge: same shape, in e.

    Returns:
        Class indices, same shape.
    """
    code = np.abs(np.asarray(pdg))
    cls = np.where(np.abs(charge) > 0, CHARGED_HADRON, NEUTRAL_HADRON)
    for own in (NONE, PHOTON, ELECTRON, MUON):
        cls = np.where(code == CLASSES[own].pdg, own, cls)
    return cls


def class_on_element(cls: npt.NDArray[np.integer], elemtype: int) -> npt.NDArray[np.int64]:
    """Restrict classes to those that an element can have.

    A track is a charged hadron, electron or muon. A cluster is a photon or a neutral hadron: on a cluster an
    electron becomes a photon, and any other charged particle a neutral hadron.

    Args:
        cls: any shape, class indices.
        elemtype: ``ELEMTYPE_TRACK`` or ``ELEMTYPE_CLUSTER``.

    Raises:
        ValueError: unknown element type.
    """
    cls = np.asarray(cls).astype(np.int64)
    if elemtype == ELEMTYPE_TRACK:
        return np.where(np.isin(cls, (NEUTRAL_HADRON, PHOTON)), CHARGED_HADRON, cls)
    if elemtype == ELEMTYPE_CLUSTER:
        neutral = np.where(np.isin(cls, (ELECTRON, PHOTON)), PHOTON, NEUTRAL_HADRON)
        return np.where(cls == NONE, NONE, neutral)
    raise ValueError(
        f"elemtype={elemtype}, expected {ELEMTYPE_TRACK} (track) or {ELEMTYPE_CLUSTER} (cluster)"
    )
