import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from requests import Response

from mlpf.data.download.transfer import (
    TRANSFER_ATTEMPTS,
    Client,
    Destination,
    RemoteFile,
    _continues,
    is_there,
    resumable_bytes,
)
from mlpf.errors import DataError
from tests.support.archive import RECORD, serve

NAME = "events.root"
BODY = bytes(range(256)) * 4


@pytest.fixture
def archive():
    with serve() as archive:
        archive.files[NAME] = BODY
        yield archive


@pytest.fixture
def destination(tmp_path):
    return Destination(tmp_path / "out" / NAME, tmp_path / "state" / "part", tmp_path / "state" / "note")


class Waits(list):
    """Stands for sleep: remembers, and does not wait."""

    def __call__(self, seconds):
        self.append(seconds)


@pytest.fixture
def waits():
    return Waits()


def remote(archive, **changes):
    digest = hashlib.md5(BODY).hexdigest()
    url = f"{archive.api}/records/{RECORD}/files/{NAME}/content"
    return RemoteFile(
        **{"name": NAME, "url": url, "size": len(BODY), "algorithm": "md5", "digest": digest} | changes
    )


def client(waits, **options):
    return Client(**{"secure": False, "sleep": waits} | options)


def statuses(archive):
    return [status for *_, status in archive.content_requests(NAME)]


def test_file_arrives_and_nothing_else_is_left(archive, destination, waits):
    seen = []
    assert client(waits).fetch(remote(archive), destination, seen.append)
    assert destination.final.read_bytes() == BODY
    assert not destination.part.exists()
    assert seen[-1] == len(BODY)
    assert seen == sorted(seen)
    assert waits == []


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_checksums_of_all_kinds_are_checked(archive, destination, waits, algorithm):
    right = hashlib.new(algorithm, BODY).hexdigest()
    assert client(waits).fetch(remote(archive, algorithm=algorithm, digest=right), destination)
    with pytest.raises(DataError, match=f"checksum {algorithm}:{right}"):
        client(waits).fetch(remote(archive, algorithm=algorithm, digest="0" * len(right)), destination)


def test_second_fetch_asks_for_nothing(archive, destination, waits):
    client(waits).fetch(remote(archive), destination)
    assert not client(waits).fetch(remote(archive), destination)
    assert statuses(archive) == [200]


def test_file_without_note_is_recognised_by_its_checksum(archive, destination, waits):
    destination.final.parent.mkdir()
    destination.final.write_bytes(BODY)
    assert not client(waits).fetch(remote(archive), destination)
    assert statuses(archive) == []
    assert destination.note.exists()


def test_changed_file_of_the_same_size_is_fetched_again(archive, destination, waits):
    client(waits).fetch(remote(archive), destination)
    destination.final.write_bytes(bytes(len(BODY)))
    assert not is_there(remote(archive), destination)
    assert client(waits).fetch(remote(archive), destination)
    assert destination.final.read_bytes() == BODY


def test_broken_connection_continues_where_it_ended(archive, destination, waits):
    archive.faults[NAME] = ["break", "break"]
    client(waits).fetch(remote(archive), destination)
    assert destination.final.read_bytes() == BODY
    assert archive.content_requests(NAME) == [
        (None, None, 200),
        ("bytes=512-", '"first"', 206),
        ("bytes=768-", '"first"', 206),
    ]
    assert waits == [0.0, 2.0]


def test_next_run_continues_what_an_interrupted_one_left(archive, destination, waits):
    archive.faults[NAME] = ["break", 404]
    with pytest.raises(DataError, match="HTTP status 404"):
        client(waits).fetch(remote(archive), destination)
    assert destination.part.read_bytes() == BODY[:512]
    client(waits).fetch(remote(archive), destination)
    assert archive.content_requests(NAME)[-1] == ("bytes=512-", '"first"', 206)
    assert destination.final.read_bytes() == BODY


def test_part_of_another_content_is_not_continued(archive, destination, waits):
    archive.faults[NAME] = ["break", 404]
    with pytest.raises(DataError):
        client(waits).fetch(remote(archive), destination)
    archive.files[NAME] = changed = BODY[::-1]
    client(waits).fetch(remote(archive, digest=hashlib.md5(changed).hexdigest()), destination)
    assert archive.content_requests(NAME)[2:] == [(None, None, 200)]
    assert destination.final.read_bytes() == changed


def test_only_a_part_of_this_file_counts_as_there(archive, destination):
    destination.part.parent.mkdir()
    file = remote(archive)
    assert resumable_bytes(file, destination) == 0
    destination.part.write_bytes(BODY[:100])
    assert resumable_bytes(file, destination) == 0
    destination.note.write_text(json.dumps({"checksum": file.checksum}), encoding="utf-8")
    assert resumable_bytes(file, destination) == 100
    destination.part.write_bytes(BODY + b"x")
    assert resumable_bytes(file, destination) == 0


def test_compression_on_the_way_is_not_wanted(archive, destination, waits):
    client(waits).fetch(remote(archive), destination)
    assert archive.encodings == ["identity"]


def test_content_that_changes_between_attempts_starts_again(archive, destination, waits):
    archive.faults[NAME] = ["break"]

    def change(_):
        archive.etag = '"second"'

    Client(secure=False, sleep=change).fetch(remote(archive), destination)
    assert statuses(archive) == [200, 200]
    assert destination.final.read_bytes() == BODY


def test_weak_tags_do_not_join_bytes(archive, destination, waits):
    archive.faults[NAME] = ["weak"]
    client(waits).fetch(remote(archive), destination)
    assert archive.content_requests(NAME)[1] == ("bytes=512-", None, 206)


@pytest.mark.parametrize(
    ("fault", "expected"), [("ignore_range", [200, 200]), ("wrong_range", [200, 206, 200])]
)
def test_server_that_cannot_continue_starts_again(archive, destination, waits, fault, expected):
    archive.faults[NAME] = ["break", fault]
    client(waits).fetch(remote(archive), destination)
    assert statuses(archive) == expected
    assert destination.final.read_bytes() == BODY


def test_server_that_breaks_and_cannot_continue_is_given_up(archive, destination, waits):
    archive.faults[NAME] = ["short", "ignore_range"] * 20
    archive.files[NAME] = BODY[:100]
    with pytest.raises(DataError, match=f"of 1024 bytes.*{TRANSFER_ATTEMPTS} attempts"):
        client(waits).fetch(remote(archive), destination)
    assert not destination.final.exists()
    assert waits == [0.0, 2.0, 4.0, 8.0, 16.0]


def test_progress_resets_the_count_of_failures(archive, destination, waits, monkeypatch):
    monkeypatch.setattr("mlpf.data.download.transfer.CHUNK", 8)
    archive.faults[NAME] = ["break"] * (TRANSFER_ATTEMPTS + 1)
    client(waits).fetch(remote(archive), destination)
    assert destination.final.read_bytes() == BODY
    assert set(waits) == {0.0}


def test_body_longer_than_promised_is_cut_at_the_promised_size(archive, destination, waits):
    archive.faults[NAME] = ["long"]
    client(waits).fetch(remote(archive), destination)
    assert destination.final.read_bytes() == BODY
    assert statuses(archive) == [200]


def test_body_shorter_than_promised_is_completed(archive, destination, waits):
    archive.faults[NAME] = ["short"]
    client(waits).fetch(remote(archive), destination)
    assert destination.final.read_bytes() == BODY
    assert statuses(archive) == [200, 206]


def test_wrong_checksum_costs_one_more_transfer(archive, destination, waits):
    archive.faults[NAME] = ["corrupt"]
    client(waits).fetch(remote(archive), destination)
    assert statuses(archive) == [200, 200]
    assert destination.final.read_bytes() == BODY


def test_wrong_checksum_twice_is_an_error_and_leaves_nothing(archive, destination, waits):
    archive.faults[NAME] = ["corrupt", "corrupt"]
    with pytest.raises(DataError, match="sent twice, expected md5:"):
        client(waits).fetch(remote(archive), destination)
    assert not destination.final.exists()
    assert not destination.part.exists()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_servers_are_asked_again_with_growing_waits(archive, destination, waits, status):
    archive.faults[NAME] = [status] * 3
    client(waits).fetch(remote(archive), destination)
    assert waits == [0.0, 2.0, 4.0]


def test_retry_after_in_seconds_and_as_a_date(archive, destination, waits):
    archive.faults[NAME] = [429]
    archive.retry_after = "17"
    client(waits).fetch(remote(archive), destination)
    assert waits.pop() == 17.0
    destination.final.unlink()
    archive.faults[NAME] = [503]
    archive.retry_after = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    client(waits).fetch(remote(archive), destination)
    assert 60 < waits.pop() <= 100
    destination.final.unlink()
    archive.faults[NAME] = [503, 503]
    archive.retry_after = "100000"
    client(waits).fetch(remote(archive), destination)
    assert waits == [300.0, 300.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_refusals_are_not_repeated(archive, destination, waits, status):
    archive.faults[NAME] = [status]
    with pytest.raises(DataError, match=f"HTTP status {status}"):
        client(waits).fetch(remote(archive), destination)
    assert statuses(archive) == [status]


def test_empty_file_needs_no_request(archive, destination, waits):
    nothing = remote(archive, size=0, digest=hashlib.md5(b"").hexdigest())
    assert client(waits).fetch(nothing, destination)
    assert destination.final.read_bytes() == b""
    assert statuses(archive) == []


def test_plain_http_is_refused_where_https_is_expected(archive, destination, waits):
    with pytest.raises(DataError, match="expected https"):
        client(waits, secure=True).fetch(remote(archive), destination)
    assert archive.requests == []


def test_nobody_listening_is_one_line(waits):
    with pytest.raises(DataError, match=r"cannot be reached .*Connection refused.*check network") as caught:
        client(waits).get_json("http://127.0.0.1:9/api/records/1")
    assert "\n" not in str(caught.value)
    assert waits == [0.0, 2.0]


def test_listing_is_asked_for_again_when_the_server_is_busy(archive, waits):
    archive.faults["listing"] = [503, "break"]
    assert client(waits).get_json(f"{archive.api}/records/{RECORD}")["id"] == int(RECORD)
    assert len(waits) == 2


def test_page_that_is_not_json_is_named(archive, waits):
    with pytest.raises(DataError, match=r"not JSON.*--api"):
        client(waits).get_json(remote(archive).url)


def test_output_that_cannot_be_written_is_named(archive, destination, waits):
    destination.final.parent.write_text("in the way", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        client(waits).fetch(remote(archive), destination)


def test_stopped_transfer_keeps_what_arrived(archive, destination, waits):
    stop = threading.Event()
    archive.faults[NAME] = ["break"]

    def interrupt(_):
        stop.set()

    with pytest.raises(DataError, match="interrupted"):
        Client(secure=False, sleep=interrupt, stop=stop).fetch(remote(archive), destination)
    assert destination.part.read_bytes() == BODY[:512]


@pytest.mark.parametrize(
    "value", ["\xb2", "\xb9\xb3", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "-5", "soon", ""]
)
def test_a_wait_that_makes_no_sense_is_not_heeded(archive, destination, waits, value):
    archive.faults[NAME] = [503]
    archive.retry_after = value
    assert client(waits).fetch(remote(archive), destination)
    assert waits == [0.0]


@pytest.mark.parametrize("digits", ["9" * 5000, "\xb2"])
def test_ranges_that_are_no_numbers_cannot_be_continued(digits):
    response = Response()
    response.headers["Content-Range"] = f"bytes {digits}-9/10"
    assert not _continues(response, 4, 10)
    response.headers["Content-Range"] = "bytes 4-9/10"
    assert _continues(response, 4, 10)


def _listing_of(archive, monkeypatch, body):
    monkeypatch.setattr(archive, "listing", lambda: None)
    monkeypatch.setattr("tests.support.archive.json.dumps", lambda _: body)
    return f"{archive.api}/records/{RECORD}"


@pytest.mark.parametrize(
    "body", ["[" * 200_000, "9" * 5000, "", "<html>"], ids=["deep", "long", "none", "html"]
)
def test_listings_that_cannot_be_parsed_are_one_line(archive, waits, monkeypatch, body):
    url = _listing_of(archive, monkeypatch, body)
    with pytest.raises(DataError, match="not JSON, expected a record"):
        client(waits).get_json(url)


def test_listings_without_end_are_not_read(archive, waits, monkeypatch):
    url = _listing_of(archive, monkeypatch, "1" + " " * 5000)
    assert client(waits).get_json(url) == 1
    monkeypatch.setattr("mlpf.data.download.transfer.LISTING_BYTES", 5000)
    with pytest.raises(DataError, match="more than 5000 bytes, expected a record"):
        client(waits).get_json(url)
