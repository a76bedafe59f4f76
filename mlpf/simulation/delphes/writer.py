"""Write simulated Delphes-like events: ROOT with a tree ``Delphes``, or pickles like the published ones.

ROOT: uproot cannot write ``TRef`` and ``TRefArray``, so references are plain integers; those of towers are
in a separate branch. The reader accepts both.

Pickles: made from the same targets, without what the published files leave out (pt of neutral candidates,
energy of charged ones) and with the opposite charge of leptons, as in the published files.
"""

import bz2
import json
import pickle
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from mlpf.data.delphes import reader as names
from mlpf.data.delphes.conversions import CHARGED_CLASSES, LEPTON_CLASSES, NEUTRAL_CLASSES
from mlpf.data.delphes.safe_unpickling import CHECKSUM_SUFFIX
from mlpf.data.delphes.tables import RawDelphes
from mlpf.data.delphes.truth import prepare_chunk
from mlpf.data.source_file import open_root, readable_errors
from mlpf.errors import DataError
from mlpf.files.atomic import atomic_write
from mlpf.files.checksum import checksum
from mlpf.physics.features import PARTICLE_COLUMNS

FormatName = Literal["root", "pickle"]
FORMATS: tuple[str, ...] = get_args(FormatName)
SUFFIXES: dict[str, str] = {"root": ".root", "pickle": ".pkl.bz2"}
EVENTS_PER_CHUNK = 20
# Of numpy 1.18 and Python 3.7, which wrote the published files.
PICKLE_PROTOCOL = 3
_PROVENANCE_TREE = "simulation"

Leaves = dict[str, npt.NDArray]
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DelphesProvenance:
    """Description of the events of a file.

    Attributes:
        sample: name of the sample.
        seed: seed of the sample.
        first_event, num_events: the file holds events first_event ... first_event + num_events - 1.
        pileup: mean number of further collisions.
    """

    sample: str
    seed: int
    first_event: int
    num_events: int
    pileup: float


def write_events(path: Path, events: Iterable[RawDelphes], provenance: DelphesProvenance) -> None:
    """Write events, one ``RawDelphes`` each, to a ``.root`` or ``.pkl.bz2`` file.

    The file appears under its name only when it is complete.

    Raises:
        ValueError: there are no events.
        OSError: the disk is full or the directory is not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    (_write_root if path.suffix == SUFFIXES["root"] else _write_pickle)(path, events, provenance)


def read_provenance(path: Path) -> DelphesProvenance:
    """Return the description that :func:`write_events` stored in a file.

    Raises:
        DataError: the file is not a complete file of the simulation.
    """
    try:
        if path.suffix == SUFFIXES["root"]:
            with open_root(path) as file, readable_errors(path):
                tree = file[_PROVENANCE_TREE]
                values = {key: tree[key].array()[0] for key in DelphesProvenance.__annotations__}
        else:
            values = json.loads(_sidecar(path).read_text(encoding="utf-8").splitlines()[1].removeprefix("#"))
        return DelphesProvenance(
            str(values["sample"]),
            int(values["seed"]),
            int(values["first_event"]),
            int(values["num_events"]),
            float(values["pileup"]),
        )
    except (DataError, OSError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not a file written by `mlpf simulate` ({type(error).__name__}); move it away"
        ) from error


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + CHECKSUM_SUFFIX)


def _write_root(path: Path, events: Iterable[RawDelphes], provenance: DelphesProvenance) -> None:
    iterator = iter(events)
    with atomic_write(path) as part, uproot.recreate(part, compression=uproot.ZSTD(3)) as file:
        tree = None
        while chunk := list(islice(iterator, EVENTS_PER_CHUNK)):
            arrays = _joined([_branches(event) for event in chunk])
            if tree is None:
                tree = file.mktree(
                    names.TREE,
                    {name: array.type.content for name, array in arrays.items()},
                    counter_name=lambda name: f"{name}_size",
                    field_name=lambda branch, leaf: f"{branch}.{leaf}",
                )
            tree.extend(arrays)
        if tree is None:
            raise ValueError(f"{path}: no events to write")
        file[_PROVENANCE_TREE] = {key: ak.Array([value]) for key, value in asdict(provenance).items()}


def _branches(event: RawDelphes) -> dict[str, Leaves]:
    """Return the leaves of every branch for one event."""
    unique_id = event.particles["id"]

    def leaves(columns: Leaves, fields: names.Fields) -> Leaves:
        return {leaf: columns[name] for name, leaf in fields.items()}

    tracks = {**event.tracks.columns, "particle": unique_id[event.track_particle]}
    charged = {**event.charged.columns, "particle": unique_id[event.charged_particle]}
    members = event.tower_particles
    sizes = np.bincount(members.source, minlength=len(event.towers)).astype(np.int32)
    branches = {
        names.PARTICLE_BRANCHES[0]: leaves(event.particles.columns, names.PARTICLE_FIELDS),
        names.TRACK_BRANCH: leaves(tracks, names.TRACK_FIELDS),
        names.TOWER_BRANCH: {
            **leaves(event.towers.columns, names.TOWER_FIELDS),
            names.TOWER_REFERENCE_COUNT: sizes,
        },
        names.TOWER_REFERENCE_BRANCH: {names.TOWER_REFERENCE_LEAF: unique_id[members.target]},
    }
    for classes, columns, fields in (
        (names.CHARGED_BRANCHES[0], charged, names.CHARGED_FIELDS),
        (names.NEUTRAL_BRANCHES[0], event.neutral.columns, names.NEUTRAL_FIELDS),
    ):
        for branch, cls in classes.items():
            of_branch = columns["cls"] == cls
            branches[branch] = {leaf: v[of_branch] for leaf, v in leaves(columns, fields).items()}
    return branches


def _joined(events: list[dict[str, Leaves]]) -> dict[str, ak.Array]:
    """Join each branch of all events into an array of type B * var * {leaf: type}."""
    arrays = {}
    for name, first in events[0].items():
        counts = [len(next(iter(event[name].values()))) for event in events]
        flat = {leaf: np.concatenate([event[name][leaf] for event in events]) for leaf in first}
        arrays[name] = ak.unflatten(ak.Array(flat), counts)
    return arrays


def _write_pickle(path: Path, events: Iterable[RawDelphes], provenance: DelphesProvenance) -> None:
    content: dict[str, list[Rows]] = {"X": [], "ygen": [], "ycand": []}
    for event in events:
        for key, rows in published_form(event).items():
            content[key].append(rows)
    if not content["X"]:
        raise ValueError(f"{path}: no events to write")
    with atomic_write(path) as part:
        with bz2.open(part, "wb") as stream:
            pickle.dump(content, stream, protocol=PICKLE_PROTOCOL)
        digest = checksum(part, "md5")
        # Written before the file, so that a file always has one; md5sum ignores the second line.
        with atomic_write(_sidecar(path)) as note:
            note.write_text(f"{digest}  {path.name}\n#{json.dumps(asdict(provenance))}\n", encoding="utf-8")


def published_form(event: RawDelphes) -> dict[str, Rows]:
    """Return ``X`` [n, 12], ``ygen`` and ``ycand`` [n, 7] of one event as in the published files."""
    events = prepare_chunk(event).events
    kinds = [kind.name for kind in events.schema.kinds]
    arrays = {
        key: np.concatenate([events[kind][key] for kind in kinds]).astype(np.float64)
        for key in ("X", "ygen", "ycand")
    }
    cls = PARTICLE_COLUMNS.index("cls")
    leptons = np.isin(arrays["ygen"][:, cls], LEPTON_CLASSES)
    arrays["ygen"][leptons, PARTICLE_COLUMNS.index("charge")] *= -1
    for classes, name in ((NEUTRAL_CLASSES, "pt"), (CHARGED_CLASSES, "energy")):
        arrays["ycand"][np.isin(arrays["ycand"][:, cls], classes), PARTICLE_COLUMNS.index(name)] = 0.0
    return arrays
