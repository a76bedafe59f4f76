"""The records of a split: read by position from its files, and decoded to arrays.

TFDS needs twice the time for it: it starts threads for every call, and copies each field several times.
"""

import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf.message import DecodeError
from tensorflow_datasets.core.features import Encoding
from tensorflow_datasets.proto import tf_example_pb2

Decoder = Callable[[bytes], dict[str, npt.NDArray]]

# Exceptions of a damaged record: from the reader, from protobuf, from a compressed field, or for a field
# that is missing or too short.
RECORD_ERRORS = (RuntimeError, OSError, DecodeError, zlib.error, ValueError, IndexError, KeyError)

# For reading single records: following records are not read ahead.
_READER_OPTIONS = "readahead_buffer_size:0"
_BUFFER_BYTES = 32 * 1024


class RecordFiles:
    """Random access to the records of several array_record files with one numbering.

    Files are opened at their first use. Several threads may read at the same time.

    Args:
        paths: the files in order.
        lengths: records of each.
    """

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int]) -> None:
        self._paths = [Path(path) for path in paths]
        self._ends = np.cumsum(lengths)
        self._readers: list[Any] = [None] * len(self._paths)
        self._lock = threading.Lock()

    def read(self, positions: npt.NDArray[np.int64]) -> list[bytes]:
        """Return the records at ``positions`` [n], in that order.

        Raises:
            RuntimeError: a file is damaged, missing or shorter than it should be.
        """
        if not len(positions):
            return []
        owner = np.searchsorted(self._ends, positions, side="right")
        first = np.concatenate([[0], self._ends])[owner]
        order = np.argsort(owner, kind="stable")
        files, starts = np.unique(owner[order], return_index=True)
        records: list[bytes] = [b""] * len(positions)
        for file, places in zip(files.tolist(), np.split(order, starts[1:]), strict=True):
            found = self._reader(file).read((positions - first)[places].tolist())
            for place, record in zip(places.tolist(), found, strict=True):
                records[place] = record
        return records

    def _reader(self, file: int) -> Any:
        with self._lock:
            if self._readers[file] is None:
                path = self._paths[file]
                if not path.is_file():
                    raise FileNotFoundError(f"{path.name} is missing")
                reader = ArrayRecordReader(
                    str(path), options=_READER_OPTIONS, file_reader_buffer_size=_BUFFER_BYTES
                )
                expected = int(np.diff(self._ends, prepend=0)[file])
                if reader.num_records() != expected:
                    raise RuntimeError(f"{path.name} has {reader.num_records()} records, expected {expected}")
                self._readers[file] = reader
            return self._readers[file]


def record_decoder(features: Any, fields: Sequence[str]) -> Decoder:
    """Return a function from a record to arrays: float32 matrices, and texts as arrays without dimension.

    Only ``fields`` are unpacked.

    Args:
        features: ``info.features`` of a TFDS dataset.
        fields: names out of these.
    """
    readers = {name: _field_reader(features[name]) for name in fields}
    if not all(readers.values()):
        return _tfds_decoder(features, fields)

    def decode(record: bytes) -> dict[str, npt.NDArray]:
        values = tf_example_pb2.Example.FromString(record).features.feature
        for name in readers:
            # For a missing key the map would make an empty entry, which is an event without elements.
            if name not in values:
                raise KeyError(f"a record has no field {name!r}")
        return {name: read(values[name]) for name, read in readers.items() if read is not None}

    return decode


def _field_reader(feature: Any) -> Callable[[Any], npt.NDArray] | None:
    """Return a function that reads a field from the protocol buffer; None if TFDS has to read it."""
    if isinstance(feature, tfds.features.Text):
        return lambda value: np.array(value.bytes_list.value[0].decode())
    if type(feature) is not tfds.features.Tensor or feature.np_dtype != np.float32 or len(feature.shape) != 2:
        return None
    shape = tuple(-1 if size is None else size for size in feature.shape)
    encoding = feature._encoding
    if encoding == Encoding.BYTES:
        return lambda value: np.frombuffer(value.bytes_list.value[0], np.float32).reshape(shape)
    if encoding == Encoding.NONE:
        return lambda value: np.array(_numbers(value), np.float32).reshape(shape)
    return None


def _numbers(value: Any) -> Any:
    """Return the list of numbers of a field; an event without elements has an empty one."""
    kind = value.WhichOneof("kind")
    if kind != "float_list":
        raise ValueError(f"a field holds {kind or 'nothing'}, expected float_list")
    return value.float_list.value


def _tfds_decoder(features: Any, fields: Sequence[str]) -> Decoder:
    chosen = tfds.features.FeaturesDict({name: features[name] for name in fields})

    def decode(record: bytes) -> dict[str, npt.NDArray]:
        event = chosen.deserialize_example_np(record)
        return {
            name: np.array(value.decode()) if isinstance(value, bytes) else np.asarray(value)
            for name, value in event.items()
        }

    return decode
