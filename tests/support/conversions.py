"""Files read as ``mlpf postprocess`` reads them, without parquet files; and what was read, compared."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlpf.data.conversion import Chunk, Conversion
from mlpf.data.delphes import reader as delphes_reader
from mlpf.data.delphes.tables import RawDelphes
from mlpf.data.edm4hep import reader as edm4hep_reader
from mlpf.data.edm4hep.raw_events import RawEvents
from mlpf.data.events import Events
from mlpf.data.flat_tables import Table
from mlpf.data.formats import open_conversion
from mlpf.data.source_file import SourceFile, open_source
from mlpf.physics.schemas import EventSchema

# How a schema of EDM4HEP events is asked for.
ELEMENTS = {"clic": "clusters", "clic_hits": "hits"}


def read_edm4hep(path: Path, chunk_events: int = 200) -> Iterator[RawEvents]:
    """Open an EDM4HEP file and read its chunks."""
    with open_source(path) as source:
        yield from edm4hep_reader.read_events(source, chunk_events)


def read_delphes(path: Path, chunk_events: int = 50) -> Iterator[RawDelphes]:
    """Open a ROOT file of Delphes and read its chunks."""
    with open_source(path) as source:
        yield from delphes_reader.read_events(source, chunk_events)


def describe_edm4hep(path: Path) -> edm4hep_reader.FileDescription:
    """Open an EDM4HEP file and describe it."""
    with open_source(path) as source:
        return edm4hep_reader.describe(source)


def joined(conversion: Conversion) -> Events:
    """All usable events of a conversion, with its metadata."""
    events = Events.concatenate([Events.empty(conversion.schema), *conversion.chunks()])
    return replace(events, metadata=conversion.metadata)


def converted(path: Path, elements: str = "clusters") -> Events:
    """All usable events of a file, with its metadata."""
    with open_conversion(path, elements) as conversion:
        return joined(conversion)


class GivenChunks(Conversion):
    """A conversion of chunks that are there already."""

    name = "given"
    truth_version = "test"

    def __init__(
        self, schema: EventSchema, chunks: Sequence[Chunk], path: Path = Path("given"), num_bytes: int = 0
    ):
        super().__init__(SourceFile(path, num_bytes), schema)
        self._given = chunks

    @classmethod
    def recognises(cls, source: SourceFile) -> bool:
        return source.path.name == "given"

    def read(self) -> Iterator[Chunk]:
        yield from self._given


def assert_same_events(found: Events, expected: Events, **tolerance: float) -> None:
    """Tables and scalars are equal: bit by bit, or with a tolerance of ``assert_allclose``."""
    assert found.schema is expected.schema
    assert found.tables.keys() == expected.tables.keys()
    for name, table in expected.tables.items():
        _assert_same(found[name], table, name, tolerance)
    _assert_same(found.scalars, expected.scalars, "scalars", tolerance)


def _assert_same(found: Table, expected: Table, name: str, tolerance: dict[str, float]) -> None:
    np.testing.assert_array_equal(found.offsets, expected.offsets, err_msg=name)
    assert found.columns.keys() == expected.columns.keys()
    for column, values in expected.columns.items():
        assert found[column].dtype == values.dtype
        if tolerance:
            np.testing.assert_allclose(found[column], values, **tolerance, err_msg=f"{name} {column}")
        else:
            assert found[column].tobytes() == values.tobytes(), f"{name} {column}"
