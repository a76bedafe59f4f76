"""The formats of files. To add one, write a ``Conversion`` and an entry in ``FORMATS``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpf.data.conversion import Conversion
from mlpf.data.delphes.conversions import DelphesConversion, PickleConversion
from mlpf.data.edm4hep.conversion import Edm4hepConversion
from mlpf.data.source_file import open_source
from mlpf.errors import DataError

FORMATS: tuple[type[Conversion], ...] = (Edm4hepConversion, DelphesConversion, PickleConversion)
SUFFIXES = tuple(dict.fromkeys(suffix for known in FORMATS for suffix in known.suffixes))
# Default kind of elements besides tracks.
DEFAULT_ELEMENTS = "clusters"


@contextmanager
def open_conversion(path: Path, elements: str = DEFAULT_ELEMENTS) -> Iterator[Conversion]:
    """Open a file and choose its conversion by its content.

    Args:
        path: a file of one of ``FORMATS``.
        elements: kind of elements besides tracks: ``clusters`` or ``hits``.

    Raises:
        DataError: the file cannot be opened, is of no known format, or has no such elements.
    """
    with open_source(path) as source:
        chosen = next((known for known in FORMATS if known.recognises(source)), None)
        if chosen is None:
            raise DataError(
                f"{path}: no file of {' or '.join(known.name for known in FORMATS)}, "
                f"found {', '.join(sorted(source.trees)) or 'nothing'}; give a file of events"
            )
        if elements not in chosen.schemas:
            raise DataError(f"{path}: {elements_of_format(chosen)}, no {elements}; drop --elements")
        yield chosen(source, chosen.schemas[elements])


def elements_of_format(known: type[Conversion]) -> str:
    """Describe the elements of a format, e.g. ``a file of Delphes has tracks and towers``."""
    kinds = dict.fromkeys(f"{kind.name}s" for schema in known.schemas.values() for kind in schema.kinds)
    return f"a file of {known.name} has {' and '.join(kinds)}"
