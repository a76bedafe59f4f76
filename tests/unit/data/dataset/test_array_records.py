from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from mlpf.data.dataset.array_records import RECORD_ERRORS, RecordFiles, record_decoder

LENGTHS = (3, 0, 4, 2)


@pytest.fixture
def files(tmp_path):
    paths, number = [], 0
    for i, length in enumerate(LENGTHS):
        paths.append(tmp_path / f"part-{i}")
        writer = ArrayRecordWriter(str(paths[-1]), "group_size:1")
        for _ in range(length):
            writer.write(b"record %d" % number)
            number += 1
        writer.close()
    return paths


@pytest.mark.parametrize("positions", [[8, 0, 5, 5, 3, 2], list(range(9)), [4], []])
def test_records_come_in_the_order_asked_for(files, positions):
    records = RecordFiles(files, LENGTHS).read(np.array(positions, np.int64))
    assert records == [b"record %d" % position for position in positions]


def test_threads_may_read_together(files):
    source = RecordFiles(files, LENGTHS)
    wanted = np.random.default_rng(0).integers(0, 9, (40, 8))
    with ThreadPoolExecutor(4) as pool:
        for positions, records in zip(wanted, pool.map(source.read, wanted), strict=True):
            assert records == [b"record %d" % position for position in positions]


@pytest.mark.parametrize(
    ("damage", "message"),
    [("missing", "part-2 is missing"), ("other", "part-2 has 2 records, expected 4"), ("cut", None)],
)
def test_damaged_files_are_one_of_the_errors_named(files, damage, message):
    if damage == "missing":
        files[2].unlink()
    elif damage == "other":
        files[2].write_bytes(files[3].read_bytes())
    else:
        files[2].write_bytes(files[2].read_bytes()[:-30])
    source = RecordFiles(files, LENGTHS)
    assert source.read(np.array([0])) == [b"record 0"]  # the other files are as they were
    with pytest.raises(RECORD_ERRORS, match=message):
        source.read(np.array([3]))


@pytest.mark.parametrize("encoding", ["none", "bytes"])
@pytest.mark.parametrize("fault", ["empty record", "no such field", "no values", "other type"])
def test_a_record_without_a_field_is_no_event_without_elements(encoding, fault):
    tensor = tfds.features.Tensor(shape=(None, 2), dtype=np.float32, encoding=encoding)
    features = tfds.features.FeaturesDict({"X": tensor, "y": tensor})
    example = tf_example_pb2.Example()
    if fault != "empty record":
        example.features.feature["X"].float_list.value[:] = [1.0, 2.0]
        example.features.feature["X"].bytes_list.value[:] = [bytes(8)]
    if fault == "no values":
        example.features.feature["X"].Clear()
    elif fault == "other type":
        example.features.feature["X"].int64_list.value[:] = [1, 2]
    fields = ("X", "y") if fault == "no such field" else ("X",)
    with pytest.raises(RECORD_ERRORS):
        record_decoder(features, fields)(example.SerializeToString())


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
@pytest.mark.parametrize("rows", [0, 3])
def test_decoding_gives_what_tfds_gives(encoding, rows):
    def matrix(columns):
        return tfds.features.Tensor(shape=(None, columns), dtype=np.float32, encoding=encoding)

    features = tfds.features.FeaturesDict({"X": matrix(2), "y": matrix(3), "event": tfds.features.Text()})
    rng = np.random.default_rng(1)
    event = {"X": rng.normal(size=(rows, 2)), "y": rng.normal(size=(rows, 3)), "event": "é_7"}
    event = {k: v.astype(np.float32) if k != "event" else v for k, v in event.items()}
    record = features.serialize_example(event)
    found = record_decoder(features, ("X", "event"))(record)
    assert list(found) == ["X", "event"]
    np.testing.assert_array_equal(found["X"], features.deserialize_example_np(record)["X"])
    np.testing.assert_array_equal(found["X"], event["X"])
    assert found["X"].dtype == np.float32
    assert str(found["event"]) == "é_7"


@pytest.mark.parametrize("encoding", ["bytes", "zlib"])
def test_a_damaged_record_is_one_of_the_errors_named(encoding):
    tensor = tfds.features.Tensor(shape=(None, 2), dtype=np.float32, encoding=encoding)
    features = tfds.features.FeaturesDict({"X": tensor})
    record = features.serialize_example({"X": np.ones((3, 2), np.float32)})
    decode = record_decoder(features, ("X",))
    for damaged in (b"", record[:-3], record.replace(b"X", b"Y"), b"\xff" + record):
        with pytest.raises(RECORD_ERRORS):
            decode(damaged)


def test_damage_within_a_compressed_field_is_one_of_the_errors_named():
    """The lengths are right; the last bytes, a checksum of the field, are not."""
    tensor = tfds.features.Tensor(shape=(None, 2), dtype=np.float32, encoding="zlib")
    features = tfds.features.FeaturesDict({"X": tensor})
    record = features.serialize_example({"X": np.ones((3, 2), np.float32)})
    decode = record_decoder(features, ("X",))
    np.testing.assert_array_equal(decode(record)["X"], np.ones((3, 2)))
    with pytest.raises(RECORD_ERRORS, match="incorrect data check"):
        decode(record[:-1] + bytes([record[-1] ^ 1]))
