"""Particle classes: PDG code -> label -> class index, and what an element may carry.

Reference: section 1.6 of the MLPF data description (J. Pata et al., Commun. Phys. 7, 124, 2024).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.physics.features import ELEMTYPE_CLUSTER, ELEMTYPE_TRACK


@dataclass(frozen=True)
class ParticleClass:
    """One class of the network: index, PDG label, name, mass hypothesis in GeV."""

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
PDG_LABELS = np.array([c.pdg for c in CLASSES])

# Leave no signal in the detector: electron, muon and tau neutrinos, either sign.
NEUTRINOS = (12, 14, 16)


def is_invisible(pdg: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Return True for neutrinos and antineutrinos. ``pdg``: any shape."""
    return np.isin(np.abs(pdg), NEUTRINOS)


def label_from_pdg(pdg: npt.NDArray[np.integer], charge: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Map PDG codes to the label of their class.

    Photons, electrons and muons keep theirs; everything else is 211 if charged, else 130; 0 stays 0.

    Args:
        pdg: any shape, signed PDG codes.
        charge: same shape, in e.

    Returns:
        Labels, same shape, out of ``PDG_LABELS``.
    """
    code = np.abs(np.asarray(pdg)).astype(np.int64)
    keeps = np.isin(code, (0, 11, 13, 22))
    return np.where(keeps, code, np.where(np.abs(charge) > 0, 211, 130))


def label_on_element(label: npt.NDArray[np.integer], elemtype: int) -> npt.NDArray[np.int64]:
    """Restrict labels to what an element can carry.

    A track carries a charged hadron, electron or muon; a cluster a photon or a neutral hadron
    (a trackless electron there looks like a photon, anything else charged like a neutral hadron).

    Args:
        label: any shape, out of ``PDG_LABELS``.
        elemtype: ``ELEMTYPE_TRACK`` or ``ELEMTYPE_CLUSTER``.

    Raises:
        ValueError: unknown element type.
    """
    label = np.asarray(label).astype(np.int64)
    if elemtype == ELEMTYPE_TRACK:
        return np.where(np.isin(label, (130, 22)), 211, label)
    if elemtype == ELEMTYPE_CLUSTER:
        return np.where(np.isin(label, (11, 22)), 22, np.where(label == 0, 0, 130))
    raise ValueError(
        f"elemtype={elemtype}, expected {ELEMTYPE_TRACK} (track) or {ELEMTYPE_CLUSTER} (cluster)"
    )


def class_from_label(label: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Map labels out of ``PDG_LABELS`` to class indices, same shape.

    Raises:
        ValueError: a label that is not one of ``PDG_LABELS``.
    """
    label = np.asarray(label)
    order = np.argsort(PDG_LABELS)
    place = np.clip(np.searchsorted(PDG_LABELS[order], label), 0, NUM_CLASSES - 1)
    index = order[place]
    unknown = label[PDG_LABELS[index] != label]
    if unknown.size:
        raise ValueError(
            f"PDG label {unknown.flat[0]} is not a class label; labels are {PDG_LABELS.tolist()}"
        )
    return index
