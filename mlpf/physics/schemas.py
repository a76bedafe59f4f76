"""Schemas: the kinds of element of each detector, in the order of their rows.

Only this file knows the differences between sets of clusters, raw hits and Delphes towers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlpf.errors import SchemaMismatch
from mlpf.physics.features import (
    ACCOUNT_COLUMNS,
    CLUSTER_FEATURES,
    DELPHES_ELEMTYPE_TOWER,
    DELPHES_ELEMTYPE_TRACK,
    DELPHES_TOWER_FEATURES,
    DELPHES_TRACK_FEATURES,
    ELEMTYPE_CLUSTER,
    ELEMTYPE_TRACK,
    HIT_FEATURES,
    HIT_TRACK_FEATURES,
    PARTICLE_COLUMNS,
    TARGETS,
    TRACK_FEATURES,
    Columns,
)

SchemaName = Literal["clic", "clic_hits", "delphes"]


@dataclass(frozen=True)
class ElementKind:
    """One kind of element.

    Attributes:
        name: singular, part of field names: ``X_<name>``.
        elemtype: value of its first column.
        features: its columns.
    """

    name: str
    elemtype: int
    features: Columns


@dataclass(frozen=True)
class EventSchema:
    """The contents of an event of one detector.

    Attributes:
        name: key of ``SCHEMAS``; the value of ``dataset.schema`` in a configuration.
        kinds: kinds of element in the order of their rows; tracks come first.
        particle_lists: lists of particles beside the elements, in parquet files and datasets.
        account: names and types of the columns about particles that truth put on no element.
        jet_algorithm: algorithm of the jet index of the targets.
    """

    name: SchemaName
    kinds: tuple[ElementKind, ...]
    particle_lists: tuple[str, ...]
    account: tuple[tuple[str, type], ...]
    jet_algorithm: Literal["ee_genkt", "antikt"]

    @property
    def num_features(self) -> int:
        """Columns F of X: shorter kinds are padded with zeros on the right."""
        return max(len(kind.features) for kind in self.kinds)

    @property
    def has_positions(self) -> bool:
        """Whether elements have places, not only directions: towers of Delphes have none."""
        return "position.x" in self.kinds[-1].features.names

    @property
    def num_element_types(self) -> int:
        """Element types, padding (0) included."""
        return 1 + max(kind.elemtype for kind in self.kinds)

    @property
    def tables(self) -> dict[str, dict[str, Columns]]:
        """Tables of prepared events: name -> matrix -> its columns.

        One table per kind of element, with inputs, truth and candidate of each, and one per particle list.
        """
        truth = {"ygen": PARTICLE_COLUMNS, "ycand": PARTICLE_COLUMNS}
        elements = {kind.name: {"X": kind.features, **truth} for kind in self.kinds}
        return elements | {name: {name: PARTICLE_COLUMNS} for name in self.particle_lists}

    @property
    def scalar_types(self) -> dict[str, type]:
        """Values that prepared events have once per event: name -> numpy type."""
        return {"event": np.int64, **dict(self.account)}

    @property
    def dataset_columns(self) -> dict[str, Columns]:
        """Columns that the metadata of a dataset names."""
        features = {f"X_{kind.name}": kind.features for kind in self.kinds}
        account = {"account": ACCOUNT_COLUMNS} if self.account else {}
        return {**features, "targets": TARGETS, "particles": PARTICLE_COLUMNS, **account}

    @property
    def optional_widths(self) -> dict[str, int]:
        """Matrices that a dataset of another group may lack: name -> columns."""
        account = {"account": len(ACCOUNT_COLUMNS)} if self.account else {}
        return dict.fromkeys(self.particle_lists, len(PARTICLE_COLUMNS)) | account

    def kind(self, name: str) -> ElementKind:
        """Return the kind called ``name``.

        Raises:
            KeyError: no such kind; the message lists those that exist.
        """
        for kind in self.kinds:
            if kind.name == name:
                return kind
        raise KeyError(f"{self.name} events have no {name!r}; kinds are {[k.name for k in self.kinds]}")


_CLIC_LISTS = ("gen_particles", "oracle_particles", "perfect_particles")
_ACCOUNT = tuple(zip(ACCOUNT_COLUMNS.names, (np.float64, np.float64, np.int64), strict=True))

SCHEMAS: dict[str, EventSchema] = {
    schema.name: schema
    for schema in (
        EventSchema(
            "clic",
            (
                ElementKind("track", ELEMTYPE_TRACK, TRACK_FEATURES),
                ElementKind("cluster", ELEMTYPE_CLUSTER, CLUSTER_FEATURES),
            ),
            _CLIC_LISTS,
            _ACCOUNT,
            "ee_genkt",
        ),
        EventSchema(
            "clic_hits",
            (
                ElementKind("track", ELEMTYPE_TRACK, HIT_TRACK_FEATURES),
                ElementKind("hit", ELEMTYPE_CLUSTER, HIT_FEATURES),
            ),
            _CLIC_LISTS,
            _ACCOUNT,
            "ee_genkt",
        ),
        # The published pickles hold elements, targets and baseline only.
        EventSchema(
            "delphes",
            (
                ElementKind("track", DELPHES_ELEMTYPE_TRACK, DELPHES_TRACK_FEATURES),
                ElementKind("tower", DELPHES_ELEMTYPE_TOWER, DELPHES_TOWER_FEATURES),
            ),
            (),
            (),
            "antikt",
        ),
    )
}


def schema_named(name: str, where: str) -> EventSchema:
    """Return the schema called ``name``.

    Args:
        name: key of ``SCHEMAS``.
        where: what names the schema, for the message.

    Raises:
        SchemaMismatch: no such schema.
    """
    if name not in SCHEMAS:
        raise SchemaMismatch(f"{where}: unknown schema {name!r}, expected one of {', '.join(SCHEMAS)}")
    return SCHEMAS[name]
