"""Samples of events: their process, and their names in commands and published files.

The simulation (how to generate a sample), the recipes of datasets (what to store) and the download (where
public files are) take the names of samples from here.
"""

from dataclasses import dataclass
from typing import Literal

# Centre-of-mass energies, GeV.
CLIC_ENERGY, LHC_ENERGY = 380.0, 14000.0
# Momentum of single particles, GeV.
GUN_MOMENTUM = (1.0, 100.0)
# Mean number of further collisions in published Delphes events.
DELPHES_PILEUP = 200


@dataclass(frozen=True)
class PhysicsSample:
    """Events of one process, or of single particles.

    Attributes:
        detector: detector of the sample.
        name: name in the recipes of datasets; unique per detector.
        title: the physics process.
        collision_energy: centre-of-mass energy in GeV; None for single particles.
        published_raw: glob of its name in published files of the detector.
        published_prepared: its name in published datasets; empty if there are none.
        overlay: further collisions in each event; empty without.
        first_file: number of the first published file.
    """

    detector: Literal["clic", "delphes"]
    name: str
    title: str
    collision_energy: float | None
    published_raw: str
    published_prepared: str = ""
    overlay: str = ""
    first_file: int = 1

    @property
    def simulation_name(self) -> str:
        """Name in ``mlpf simulate``, unique among all samples."""
        return self.name if self.detector == "clic" else self.download_name

    @property
    def download_name(self) -> str:
        """Name of its detector files in ``mlpf download``, unique among all samples."""
        return f"{self.detector}_{self.name}"

    @property
    def is_gun(self) -> bool:
        """Whether an event is a single particle."""
        return self.collision_energy is None

    @property
    def energy(self) -> str:
        """Text about the energy of the collision, or of the single particles."""
        if self.collision_energy is None:
            return f"{GUN_MOMENTUM[0]:g} to {GUN_MOMENTUM[1]:g} GeV"
        if self.collision_energy >= 1000:
            return f"{self.collision_energy / 1000:g} TeV"
        return f"{self.collision_energy:g} GeV"

    @property
    def description(self) -> str:
        """Description of the sample in one line."""
        return ", ".join(filter(None, (self.title, self.energy, self.overlay)))


def _clic_process(name: str, title: str, raw: str, first_file: int = 1, overlay: str = "") -> PhysicsSample:
    return PhysicsSample("clic", name, f"e+e- -> {title}", CLIC_ENERGY, raw, name, overlay, first_file)


def _gun(particle: str, raw: str, prepared: str | None = None) -> PhysicsSample:
    name = f"single_{particle}"
    return PhysicsSample("clic", name, f"single {particle}", None, raw, f"single_{prepared or particle}")


def _delphes_process(name: str, title: str, raw: str) -> PhysicsSample:
    overlay = f"on average {DELPHES_PILEUP} further collisions"
    return PhysicsSample("delphes", name, f"pp -> {title}", LHC_ENERGY, raw, overlay=overlay)


# CLIC, of clusters and of hits.
CLIC_SAMPLES = {
    sample.name: sample
    for sample in (
        _clic_process("ttbar", "top pair", "p8_ee_tt_ecm380"),
        _clic_process("qq", "quark pair", "p8_ee_qq_ecm380", 100001),
        _clic_process("zh_tautau", "ZH, H -> tau pair", "p8_ee_ZH_Htautau_ecm380", 200001),
        _clic_process("ww_fullhad", "WW, both hadronic", "p8_ee_WW_fullhad_ecm380", 300001),
        _clic_process(
            "ttbar_pu10",
            "top pair",
            "p8_ee_tt_ecm380_PU10",
            overlay="on average ten overlaid photon-photon collisions",
        ),
        _gun("neutron", "neutron"),
        _gun("kaon0l", "kaon0L"),
        _gun("pi", "pi[-+]"),
        _gun("pi0", "pi0"),
        _gun("mu", "mu[-+]", "muon"),
        _gun("electron", "e[-+]"),
        _gun("gamma", "gamma"),
    )
}

# Proton collisions in Delphes.
DELPHES_SAMPLES = {
    sample.name: sample
    for sample in (
        _delphes_process("ttbar", "top pair", "tev14_pythia8_ttbar"),
        _delphes_process("qcd", "jets above 20 GeV", "tev14_pythia8_qcd"),
    )
}
