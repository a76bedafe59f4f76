"""One detector: what reader, features, network, simulation and limits of truth must agree on."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from mlpf.config.documents import read_model
from mlpf.config.model_schema import Section
from mlpf.errors import ConfigError, DataError

_FOLDER = Path(__file__).with_name("detectors")
_SUFFIXES = (".yaml", ".yml")
# A name of a collection becomes part of the names of branches.
_COLLECTION = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
Names = Annotated[list[str], Field(min_length=1)]


class CollectionsConfig(Section):
    """Names of the collections of EDM4HEP files, by role."""

    particles: str = Field(description="generated particles")
    tracks: str = Field(description="tracks whose first state is the one at the interaction point")
    first_tracks: str | None = Field(
        None,
        description="tracks before a refit, in the same order: links and states may be theirs; null = none",
    )
    clusters: str = Field(description="calorimeter clusters")
    candidates: Names = Field(
        description="particles of the rule-based reconstruction; the first that is there is read"
    )
    hit_links: str = Field(description="links of calorimeter hits to particles")
    track_links: str = Field(description="links of tracks to particles")
    ecal_hits: Names = Field(description="hits of the electromagnetic calorimeter")
    hcal_hits: Names = Field(description="hits of the hadronic calorimeter")
    muon_hits: list[str] = Field([], description="hits of the muon system")

    @field_validator("*")
    @classmethod
    def _can_be_in_names_of_branches(cls, value: str | list[str] | None) -> str | list[str] | None:
        for name in _as_list(value):
            if not _COLLECTION.fullmatch(name):
                raise ValueError(f"{name!r}: expected the name of a collection: letters, digits and _")
        return value

    @model_validator(mode="after")
    def _each_has_one_role(self) -> "CollectionsConfig":
        names = [name for value in self.model_dump().values() for name in _as_list(value)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}; a collection has one role")
        return self


class SimulatedGeometryConfig(Section):
    """What only ``mlpf simulate`` has to know."""

    tracker_inner_radius_mm: PositiveFloat = Field(description="first layer of the tracker")
    endcap_inner_radius_mm: PositiveFloat = Field(
        description="nothing is measured at the end caps inside this radius"
    )
    ecal_depth_mm: PositiveFloat = Field(description="depth of the ECAL behind the calorimeter face")
    hcal_start_mm: PositiveFloat = Field(description="depth where the HCAL begins")
    hcal_end_mm: PositiveFloat = Field(description="depth where the HCAL ends; the rest leaks")
    muon_barrel_radius_mm: PositiveFloat = Field(description="radius of the first muon layer in the barrel")
    muon_endcap_mm: PositiveFloat = Field(description="|z| of the first muon layer in the end caps")


class DetectorConfig(Section):
    """A detector. All keys but ``simulation`` describe its data."""

    name: Annotated[str, Field(min_length=1)] = Field(description="name, for messages")
    field_T: PositiveFloat = Field(description="solenoid field along z, T", allow_inf_nan=False)
    face_radius_mm: PositiveFloat = Field(
        description="radius of the calorimeter face in the barrel", allow_inf_nan=False
    )
    face_half_length_mm: PositiveFloat = Field(
        description="|z| of the calorimeter face in the end caps", allow_inf_nan=False
    )
    ecal_hadron_response: Annotated[float, Field(gt=0.0, le=2.0)] = Field(
        description="response of the ECAL to hadrons relative to photons; the HCAL is on the hadronic scale"
    )
    collections: CollectionsConfig = Field(description="names of the collections of its EDM4HEP files")
    simulation: SimulatedGeometryConfig | None = Field(
        None, description="geometry that only mlpf simulate needs; null = it cannot be simulated"
    )

    @property
    def face_mm(self) -> tuple[float, float]:
        """Radius and half length of the calorimeter face in mm."""
        return self.face_radius_mm, self.face_half_length_mm

    @model_validator(mode="after")
    def _layers_do_not_overlap(self) -> "DetectorConfig":
        geometry = self.simulation
        if geometry is None:
            return self
        radius, half_length = self.face_mm
        order = (
            (
                "simulation.tracker_inner_radius_mm",
                geometry.tracker_inner_radius_mm,
                "face_radius_mm",
                radius,
            ),
            ("simulation.endcap_inner_radius_mm", geometry.endcap_inner_radius_mm, "face_radius_mm", radius),
            (
                "simulation.hcal_start_mm",
                geometry.hcal_start_mm,
                "simulation.hcal_end_mm",
                geometry.hcal_end_mm,
            ),
            (
                "face_radius_mm + simulation.hcal_end_mm",
                radius + geometry.hcal_end_mm,
                "simulation.muon_barrel_radius_mm",
                geometry.muon_barrel_radius_mm,
            ),
            (
                "face_half_length_mm + simulation.hcal_end_mm",
                half_length + geometry.hcal_end_mm,
                "simulation.muon_endcap_mm",
                geometry.muon_endcap_mm,
            ),
        )
        for inner, low, outer, high in order:
            if low >= high:
                raise ValueError(f"{inner} is {low:g}, expected less than {outer}, {high:g}")
        if geometry.ecal_depth_mm > geometry.hcal_start_mm:
            raise ValueError(
                f"simulation.ecal_depth_mm is {geometry.ecal_depth_mm:g}, expected at most "
                f"simulation.hcal_start_mm, {geometry.hcal_start_mm:g}"
            )
        return self

    def difference(self, other: "DetectorConfig", mine: str, theirs: str) -> str:
        """Say in which key another description differs first, empty if it is the same.

        Args:
            other: the other description.
            mine: what this one belongs to, for the text.
            theirs: what the other one belongs to.
        """
        before, after = dict(_flat(self.model_dump())), dict(_flat(other.model_dump()))
        for key in (*before, *(key for key in after if key not in before)):
            if before.get(key) != after.get(key):
                return (
                    f"{key} is {before.get(key, 'not given')} {mine}, {after.get(key, 'not given')} {theirs}"
                )
        return ""


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def shipped_detectors() -> list[str]:
    """Return the names of the descriptions that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_detector(given: str) -> DetectorConfig:
    """Return the description that a user means.

    Args:
        given: one of ``shipped_detectors()``, or a YAML file.

    Raises:
        ConfigError: no such detector, or its file is not valid: every problem, one per line, with file, line
            and key.
    """
    known = shipped_detectors()
    if Path(given).suffix in _SUFFIXES:
        return read_model(
            Path(given), f"the package has {', '.join(known)}, or give a file of your own", DetectorConfig
        )
    if given not in known:
        close = difflib.get_close_matches(given, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(
            f"detector {given}: no such detector{hint}; the package has {', '.join(known)}, or give a file "
            "FILE.yaml"
        )
    return read_model(
        _FOLDER / f"{given}.yaml",
        "the installation of mlpf is not complete; install it again",
        DetectorConfig,
    )


# The detector of everything that was made before descriptions were recorded. Read without line numbers: a
# test reads it as users' files are read.
CLIC = DetectorConfig.model_validate(yaml.safe_load((_FOLDER / "clic.yaml").read_text(encoding="utf-8")))


def recorded_detector(metadata: Mapping[str, Any], where: str) -> DetectorConfig:
    """Return the description in the metadata of a file; files of before are of CLIC.

    Raises:
        DataError: it is damaged, or was written by a version with other keys.
    """
    if "detector" not in metadata:
        return CLIC
    try:
        return DetectorConfig.model_validate(metadata["detector"])
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in ("detector", *problem["loc"]))
        raise DataError(
            f"{where}: its description of the detector is damaged ({key}: {problem['msg']}); make it again"
        ) from None


def _named(value: Any) -> Any:
    """Replace a name or a path by the description; pydantic adds the place where it is given."""
    try:
        return find_detector(value) if isinstance(value, str) else value
    except ConfigError as error:
        raise ValueError(f"in {error}" if Path(str(value)).suffix else str(error)) from None


# In a configuration: a name or a file, which is replaced by the description.
Detector = Annotated[DetectorConfig, BeforeValidator(_named)]
