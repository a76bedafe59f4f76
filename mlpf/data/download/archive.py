"""The public archive: the record of each sample, and the list of files of a record."""

import fnmatch
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from mlpf.data.download.transfer import Client, RemoteFile
from mlpf.errors import DataError
from mlpf.files.checksum import ALGORITHMS
from mlpf.physics.samples import CLIC_SAMPLES, DELPHES_SAMPLES, PhysicsSample

# Largest size of a file: more than any archive has, and within the range of progress counters.
_SIZE_LIMIT = 2**63

API = "https://zenodo.org/api"


@dataclass(frozen=True)
class ArchivedSample:
    """Some files of a record.

    Attributes:
        name: name in the command, and name of the folder of its files.
        record: number of the record.
        patterns: globs of its file names.
        excluded: globs of file names that ``patterns`` match, but that belong to another sample.
        content: description of its content.
    """

    name: str
    record: str
    patterns: tuple[str, ...]
    excluded: tuple[str, ...]
    content: str

    def holds(self, name: str) -> bool:
        """Return whether a file of the record belongs to the sample."""

        def match(globs: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, glob) for glob in globs)

        return match(self.patterns) and not match(self.excluded)


_RAW, _CLUSTERS, _HITS, _DELPHES = "8260741", "8409592", "8414225", "4559324"
# Processes that were prepared as tracks and hits; all samples of single particles were.
_PROCESSES_WITH_HITS = ("ttbar", "qq")


def _samples() -> Iterator[ArchivedSample]:
    """Yield the samples in the archive of each physics sample."""
    for sample in DELPHES_SAMPLES.values():
        content = f"{sample.description}, Delphes, pickles"
        yield ArchivedSample(sample.download_name, _DELPHES, (f"{sample.published_raw}_*.pkl*",), (), content)
    for sample in CLIC_SAMPLES.values():
        yield _raw_clic(sample)
    for sample in CLIC_SAMPLES.values():
        if not sample.is_gun:
            yield _prepared_clic(sample, "clusters", _CLUSTERS, "")
    for sample in CLIC_SAMPLES.values():
        if sample.is_gun or sample.name in _PROCESSES_WITH_HITS:
            yield _prepared_clic(sample, "hits", _HITS, "_hits")


def _raw_clic(sample: PhysicsSample) -> ArchivedSample:
    """Return the files of the full simulation."""
    raw, content = sample.published_raw, f"{_what(sample)}, CLIC full simulation, EDM4HEP"
    if sample.is_gun:
        return ArchivedSample(sample.download_name, _RAW, (f"{raw}*", f"*_{raw}*"), (), content)
    overlaid = () if sample.overlay else (f"*{raw}_PU10*",)
    return ArchivedSample(sample.download_name, _RAW, (f"*{raw}*",), overlaid, content)


def _prepared_clic(sample: PhysicsSample, kind: str, record: str, infix: str) -> ArchivedSample:
    """Return the files of the published dataset."""
    return ArchivedSample(
        f"{sample.download_name}_{kind}",
        record,
        (f"*clic_edm_{sample.published_prepared}{infix}_pf*",),
        (),
        f"{_what(sample)}, CLIC, prepared with tracks and {kind}",
    )


def _what(sample: PhysicsSample) -> str:
    """Describe published events; simulated single particles have other momenta."""
    return sample.title if sample.is_gun else sample.description


SAMPLES: dict[str, ArchivedSample] = {sample.name: sample for sample in _samples()}


def list_record(client: Client, api: str, record: str) -> list[dict[str, Any]]:
    """Return the files of a record in the archive, by name.

    Args:
        client: HTTP client.
        api: base address of the archive, e.g. ``API``.
        record: number of the record.

    Raises:
        DataError: not a record number, the archive cannot be reached, or its answer lists no files.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", record):
        raise DataError(f"--record {record!r}: not a record, expected a number such as {_DELPHES}")
    url = f"{api.rstrip('/')}/records/{record}"
    answer = client.get_json(url)
    files = answer.get("files") if isinstance(answer, dict) else None
    if isinstance(files, dict):  # newer versions of the archive's software
        files = files.get("entries")
    if isinstance(files, dict):
        files = list(files.values())
    if not isinstance(files, list) or not all(isinstance(entry, dict) for entry in files):
        raise DataError(f"{url}: lists no files; check that the record is public and its number right")
    return [{**entry, "key": _text(entry.get("key", "")), "listed_at": url} for entry in files]


def _text(value: Any) -> str:
    """Return a text unchanged, and a short description of anything else, which may be deeply nested."""
    return value if isinstance(value, str) else reprlib.repr(value)


def remote_file(entry: dict[str, Any]) -> RemoteFile:
    """Check one entry of ``list_record`` and return the file to fetch.

    Raises:
        DataError: the name leads out of its folder, or size, checksum or address are missing.
    """
    name, size = entry["key"], entry.get("size")
    where = f"{entry['listed_at']}: file {name[:120]!r}"
    _check_name(name, where)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
        raise DataError(
            f"{where}: size {reprlib.repr(size)}, expected a number of bytes; report it to the archive"
        )
    checksum = _text(entry.get("checksum", ""))
    algorithm, _, digest = checksum.lower().partition(":")
    if algorithm not in ALGORITHMS or not re.fullmatch(r"[0-9a-f]{32,128}", digest):
        raise DataError(
            f"{where}: checksum {checksum!r:.80}, expected one of {', '.join(ALGORITHMS)} "
            "and hexadecimal digits; it cannot be checked and is not fetched"
        )
    links = entry.get("links")
    links = links if isinstance(links, dict) else {}
    default = f"{entry['listed_at']}/files/{quote(name)}/content"
    link = links.get("content") or links.get("self") or default
    try:
        url = urljoin(entry["listed_at"], link) if isinstance(link, str) else ""
        usable = urlsplit(url).scheme in ("http", "https") and url.isprintable()
    except ValueError:  # e.g. a bracket that is not closed
        usable = False
    if not usable:
        raise DataError(
            f"{where}: address {_text(link)[:120]!r}, expected https://...; report it to the archive"
        )
    return RemoteFile(name, url, size, algorithm, digest)


def _check_name(name: str, where: str) -> None:
    """Refuse names that lead out of a folder, name hidden files, or contain control characters."""
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and not any(character in name for character in '\\:*?"<>|')
    inside = bool(parts) and not name.startswith("/") and not any(part.startswith(".") for part in parts)
    if not (plain and inside and len(name.encode()) <= 200):
        raise DataError(f"{where}: not a name that can be written safely, it is not fetched; report it")


def in_order(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries sorted by name, numbers in it by their value: ``_2`` comes before ``_10``."""

    def key(entry: dict[str, Any]) -> list[tuple[int, int, str]]:
        pieces = re.split(r"([0-9]+)", entry["key"])
        return [(1, int(piece[:18]), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces]

    return sorted(entries, key=key)
