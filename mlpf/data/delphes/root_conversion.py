"""One Delphes ROOT file -> prepared events, by reader, features and truth."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

from mlpf.data.conversion import Chunk, Conversion
from mlpf.data.delphes.reader import TREE, read_events
from mlpf.data.delphes.truth import DELPHES_TRUTH_VERSION, prepare_chunk
from mlpf.data.source_file import SourceFile
from mlpf.physics.schemas import SCHEMAS, EventSchema


class DelphesConversion(Conversion):
    """Converts a ROOT file of Delphes."""

    name = "Delphes"
    suffixes = (".root",)
    schemas: ClassVar[Mapping[str, EventSchema]] = {"clusters": SCHEMAS["delphes"]}
    truth_version = DELPHES_TRUTH_VERSION

    @classmethod
    def recognises(cls, source: SourceFile) -> bool:
        """Return whether a file has a tree of Delphes."""
        return TREE in source.trees

    def read(self) -> Iterator[Chunk]:
        """Yield all events in file order, in chunks."""
        for raw in read_events(self.source):
            yield prepare_chunk(raw)
