"""Fetch files over HTTP; after a broken connection only the rest is fetched."""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import requests
from requests import exceptions as failures
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.util import Retry

from mlpf import __version__
from mlpf.errors import DataError
from mlpf.files.atomic import atomic_write
from mlpf.files.checksum import checksum

CHUNK = 1 << 18
# Allowed failures in a row; fewer for a listing, which is small and keeps the user waiting.
TRANSFER_ATTEMPTS = 6
LISTING_ATTEMPTS = 3
# The largest listings of public records have a few MiB.
LISTING_BYTES = 64 * 1024**2
LONGEST_WAIT = 300.0
# Seconds to connect, and between two pieces of a body.
TIMEOUT = (15, 60)
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RemoteFile:
    """One file on a server.

    Attributes:
        name: path below its folder, with slashes.
        url: address of its content.
        size: bytes.
        algorithm: one of ``ALGORITHMS``.
        digest: checksum of the content, lower-case hexadecimal.
    """

    name: str
    url: str
    size: int
    algorithm: str
    digest: str

    @property
    def checksum(self) -> str:
        """Algorithm and digest, as record listings write them."""
        return f"{self.algorithm}:{self.digest}"


@dataclass(frozen=True)
class Destination:
    """Where one file goes, and what is remembered about it.

    Attributes:
        final: a complete file with the right checksum, or the file that was there before.
        part: the part that has arrived.
        note: JSON about ``part`` or ``final``.
    """

    final: Path
    part: Path
    note: Path


class _Passing(Exception):
    """A failure that another attempt may avoid; ``retry_after`` is the header of this name."""

    def __init__(self, reason: str, retry_after: str = "") -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Client:
    """One HTTP session with retries, resumes and checks. Use it in one thread only.

    Args:
        secure: accept only HTTPS, also after a redirect.
        sleep: function that waits a number of seconds.
        stop: once set, transfers end with an error at the next piece; arrived parts stay.
    """

    def __init__(
        self,
        secure: bool = True,
        sleep: Callable[[float], object] = time.sleep,
        stop: threading.Event | None = None,
    ) -> None:
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"mlpf/{__version__}"
        # Checksums are those of the stored bytes, which compression on the way would change.
        self._session.headers["Accept-Encoding"] = "identity"
        if secure:
            del self._session.adapters["http://"]
        self._sleep = sleep
        self._stop = stop or threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get_json(self, url: str) -> Any:
        """Return the JSON document at ``url``.

        Raises:
            DataError: the server cannot be reached or refuses, or its answer is invalid or too large.
        """
        retry = _retry(LISTING_ATTEMPTS)
        while True:
            try:
                with self._open(url, {"Accept": "application/json"}) as response:
                    return _parsed(_listing(response), url)
            except _Passing as failure:
                retry = self._after(failure, retry, url)
            except failures.RequestException as error:
                retry = self._after(_Passing(_reason(error)), retry, url)

    def fetch(
        self, file: RemoteFile, destination: Destination, report: Callable[[int], object] = lambda _: None
    ) -> bool:
        """Bring one file to its destination, from where an earlier attempt ended.

        Args:
            file: what to fetch.
            destination: where to.
            report: called with the bytes that are there.

        Returns:
            False if the file existed already with the right checksum.

        Raises:
            DataError: it could not be fetched, or has another checksum, twice.
        """
        try:
            if is_there(file, destination):
                return False
            for folder in (destination.part.parent, destination.note.parent, destination.final.parent):
                folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):  # what was resumed may be damaged: one more transfer from the start
                self._complete(file, destination, report)
                found = checksum(destination.part, file.algorithm)
                if found == file.digest:
                    destination.part.replace(destination.final)
                    _write_note(destination.note, _signature(file, destination.final))
                    return True
                destination.part.unlink()
        except OSError as error:
            raise DataError(
                f"{destination.final}: cannot be written ({error.strerror or error}); "
                "check permission and free space"
            ) from error
        raise DataError(
            f"{file.name}: checksum {file.algorithm}:{found} of what {file.url} sent twice, expected "
            f"{file.checksum}; run the command again later or report it to the archive"
        )

    def _complete(self, file: RemoteFile, destination: Destination, report: Callable[[int], object]) -> None:
        """Fill the part file to the promised size."""
        if resumable_bytes(file, destination) == 0:
            destination.part.unlink(missing_ok=True)
            destination.part.touch()
        retry = _retry(TRANSFER_ATTEMPTS)
        best = _size(destination.part)
        while (here := _size(destination.part)) < file.size:
            report(here)
            try:
                self._append(file, destination, report)
                raise _Passing(f"the connection ended after {_size(destination.part)} of {file.size} bytes")
            except _Passing as failure:
                if (here := _size(destination.part)) == file.size:
                    break
                # Only bytes beyond the largest position so far count as progress. Otherwise a server that
                # cannot resume and always breaks off would be asked without end.
                if here >= best + CHUNK:
                    best, retry = here, _retry(TRANSFER_ATTEMPTS)
                retry = self._after(failure, retry, file.url)
        report(file.size)

    def _append(self, file: RemoteFile, destination: Destination, report: Callable[[int], object]) -> None:
        """Ask for what is missing and write what arrives, never more than the promised size."""
        here = _size(destination.part)
        headers = {}
        if here:
            headers["Range"] = f"bytes={here}-"
            etag = _read_note(destination.note).get("etag")
            if etag:
                headers["If-Range"] = etag
        with self._open(file.url, headers) as response:
            resumed = response.status_code == 206
            if response.status_code == 416 or (resumed and not _continues(response, here, file.size)):
                destination.part.unlink()
                destination.part.touch()
                raise _Passing(f"the server cannot continue at byte {here}")
            if response.status_code not in (200, 206):
                raise DataError(f"{file.url}: HTTP status {response.status_code}, expected 200 or 206")
            _write_note(destination.note, {"checksum": file.checksum, "etag": _strong_etag(response)})
            with destination.part.open("ab" if resumed else "wb") as stream:
                here = here if resumed else 0
                for chunk in self._pieces(response):
                    here += stream.write(chunk[: file.size - here])
                    report(here)
                    if here == file.size:
                        break
                stream.flush()
                os.fsync(stream.fileno())

    def _after(self, failure: _Passing, retry: Retry, url: str) -> Retry:
        """Wait as long as the server asks for, else 0, 2, 4, ... seconds, or give up.

        urllib3 itself repeats only failures before a body arrives, and its waiting cannot be interrupted.
        """
        try:
            retry = retry.increment("GET", url, error=HTTPError(str(failure)))
        except MaxRetryError:
            raise DataError(
                f"{url}: {failure} ({len(retry.history) + 1} attempts); "
                "check network and proxy, or run the same command again later"
            ) from None
        wait = retry.get_backoff_time()
        with suppress(InvalidHeader, ValueError, OverflowError):  # no such header, or an invalid one
            wait = retry.parse_retry_after(failure.retry_after)
        self._sleep(min(wait, LONGEST_WAIT))
        return retry

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the body as stored on the server; turn broken connections into errors of this module."""
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                if self._stop.is_set():
                    raise DataError(f"{response.url}: interrupted; run the same command again to continue")
                yield chunk
        except (HTTPError, failures.RequestException) as error:
            raise _Passing(_reason(error)) from error

    def _open(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send the request; return the response with its body unread."""
        if self._stop.is_set():
            raise DataError(f"{url}: interrupted; run the same command again to continue")
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        except failures.SSLError as error:
            raise DataError(f"{url}: certificate not accepted ({_reason(error)}); check the proxy") from error
        except (failures.InvalidSchema, failures.TooManyRedirects, ValueError) as error:
            raise DataError(f"{url}: cannot be used ({_reason(error)}); expected https://...") from error
        except failures.RequestException as error:
            raise _Passing(f"cannot be reached ({_reason(error)})") from error
        if response.status_code < 400 or response.status_code == 416:
            return response
        response.close()
        status = f"HTTP status {response.status_code} {response.reason or ''}".strip()
        if response.status_code in PASSING_STATUS:
            raise _Passing(status, response.headers.get("Retry-After", ""))
        raise DataError(f"{url}: {status}; check that it exists and is public")


def _retry(attempts: int) -> Retry:
    return Retry(attempts - 1, backoff_factor=1)


def _listing(response: requests.Response) -> bytes:
    """Return the body of a listing; refuse one that is too large."""
    body = bytearray()
    for chunk in response.iter_content(CHUNK):
        body += chunk
        if len(body) > LISTING_BYTES:
            raise DataError(
                f"{response.url}: more than {LISTING_BYTES} bytes, expected a record of the archive; "
                "check --api"
            )
    return bytes(body)


def _parsed(body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: lists in lists in lists
        raise DataError(f"{url}: not JSON, expected a record of the archive; check --api") from None


def is_there(file: RemoteFile, destination: Destination) -> bool:
    """Return whether the final file has the right content.

    The checksum is computed, unless a note says that it was right for the same size and time of change.
    """
    if not destination.final.is_file() or destination.final.stat().st_size != file.size:
        return False
    signature = _signature(file, destination.final)
    if _read_note(destination.note) == signature:
        return True
    if checksum(destination.final, file.algorithm) != file.digest:
        return False
    _write_note(destination.note, signature)
    return True


def resumable_bytes(file: RemoteFile, destination: Destination) -> int:
    """Return how many bytes of this very file an earlier attempt left."""
    size = _size(destination.part)
    return size if size <= file.size and _read_note(destination.note).get("checksum") == file.checksum else 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _signature(file: RemoteFile, path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"checksum": file.checksum, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(path: Path, note: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(note), encoding="utf-8")


def _continues(response: requests.Response, start: int, size: int) -> bool:
    """Return whether a partial response begins at the end of the part and belongs to a file of this size."""
    found = re.fullmatch(
        r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "").strip()
    )
    return found is not None and int(found[1]) == start and found[2] in ("*", str(size))


def _strong_etag(response: requests.Response) -> str:
    """Return the entity tag if it guarantees equal bytes; weak tags do not."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else ""


def _reason(error: BaseException) -> str:
    """Return the innermost message in one line; outer ones repeat addresses and class names."""
    while True:
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return " ".join(str(error).split()).rpartition("): ")[2][:200]
