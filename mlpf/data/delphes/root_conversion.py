"""One Delphes ROOT file -> prepared events: reader, features and truth put together."""

from collections.abc import Iterator

from mlpf.data.delphes.conversion import DelphesFilePreparation, PreparedChunk
from mlpf.data.delphes.reader import read_events
from mlpf.data.delphes.truth import DELPHES_TRUTH_VERSION, prepare_chunk


class DelphesPreparation(DelphesFilePreparation):
    """Reads a ROOT file of Delphes chunk by chunk and computes everything a dataset needs."""

    truth_version = DELPHES_TRUTH_VERSION

    def _read(self) -> Iterator[PreparedChunk]:
        for raw in read_events(self._path):
            yield prepare_chunk(raw, self._counters)
