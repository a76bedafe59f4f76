"""Collection ids of EDM4HEP files, which are the numbers of collections in references.

Up to podio 0.16 they are small numbers that depend on the file. From 0.17 on they are hashes of the names, so
that they are known even if the file lost its metadata.
"""

from typing import Any

import numpy as np

from mlpf.errors import DataError

ID_BITS = 0xFFFFFFFF
# Tree, and its branches of names and ids; the first existing one is taken. Categories other than events have
# their own tables in the same tree.
_ID_TABLES = (
    ("metadata", "m_names", "m_collectionIDs"),
    ("metadata", "CollectionIDs/m_names", "CollectionIDs/m_collectionIDs"),
    ("podio_metadata", "events___idTable/m_names", "events___idTable/m_collectionIDs"),
    ("podio_metadata", "events___CollectionTypeInfo/name", "events___CollectionTypeInfo/collectionID"),
)


def murmur3_32(text: str, seed: int = 0) -> int:
    """Return the 32 bit MurmurHash3 (x86 variant) of the UTF-8 bytes of ``text``: podio's collection id."""
    data = text.encode()
    mixed = seed
    for start in range(0, len(data), 4):
        block = data[start : start + 4]
        word = int.from_bytes(block, "little") * 0xCC9E2D51 & ID_BITS
        mixed ^= _rotated(word, 15) * 0x1B873593 & ID_BITS
        if len(block) == 4:
            mixed = (_rotated(mixed, 13) * 5 + 0xE6546B64) & ID_BITS
    mixed ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ mixed >> shift) * factor & ID_BITS
    return mixed ^ mixed >> 16


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & ID_BITS


def read_id_table(file: Any) -> tuple[dict[str, int], str]:
    """Read the id table of an open ROOT file.

    Args:
        file: what ``uproot.open`` returns.

    Returns:
        name -> id modulo 2^32, and the name of the tree and branch; ({}, "") if the file has no table.
    """
    trees = set(file.keys(cycle=False, recursive=False))
    for name, names_branch, ids_branch in _ID_TABLES:
        if name not in trees:
            continue
        tree = file[name]
        keys = {_plain(key): key for key in tree.keys()}  # noqa: SIM118 - a tree iterates over branches, not names
        if _plain(names_branch) in keys and _plain(ids_branch) in keys:
            names = tree[keys[_plain(names_branch)]].array(entry_stop=1)
            ids = tree[keys[_plain(ids_branch)]].array(entry_stop=1)
            if len(names) and len(ids):
                pairs = zip(names[0].to_list(), ids[0].to_list(), strict=True)
                return {str(key): int(value) & ID_BITS for key, value in pairs}, f"{name}/{names_branch}"
    return {}, ""


def _plain(key: str) -> str:
    """Return one spelling for a/b, a.b and a/a.b: files name the members of a branch differently."""
    parts = key.replace("/", ".").split(".")
    return ".".join(
        part for part, after in zip(parts, [*parts[1:], ""], strict=True) if part and part != after
    )


def collection_ids(
    table: dict[str, int], names: list[str], *, old_references: bool, where: object
) -> dict[int, int]:
    """Return the collection of each id in references.

    Args:
        table: name -> id, as :func:`read_id_table` returns it; may be empty.
        names: collections that references may lead to.
        old_references: the file is of podio 0.16 or older, whose ids are no hashes.
        where: the file, for the message.

    Returns:
        id -> position in ``names``; collections without an id are left out.

    Raises:
        DataError: the file is old and has no table.
    """
    if not table and old_references:
        raise DataError(
            f"{where}: no table of collection ids (tree 'metadata' with m_names and m_collectionIDs, or "
            "'podio_metadata'), without which references of the layout of podio 0.16 and older mean nothing; "
            "use the file as it was written, not a skim"
        )
    ids: dict[int, int] = {}
    for position, name in enumerate(names):
        if name in table:
            ids[table[name]] = position
        elif not old_references:
            ids[murmur3_32(name)] = position
    return ids


def positions(collection: np.ndarray, ids: dict[int, int]) -> np.ndarray:
    """Return the position of the collection of each reference [n]; -1 for an unknown id."""
    collection = collection & ID_BITS
    found = np.full(len(collection), -1, dtype=np.int64)
    for number, position in ids.items():
        found[collection == number] = position
    return found
