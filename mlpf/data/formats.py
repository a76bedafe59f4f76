"""The formats of files. To add one, write a ``Conversion`` and an entry in ``FORMATS``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlpf.config.detector import DetectorConfig
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
def open_conversion(
    path: Path, elements: str = DEFAULT_ELEMENTS, detector: DetectorConfig | None = None
) -> Iterator[Conversion]:
    """Open a file and choose how it is converted by what it holds.

    Args:
        path: a file of one of ``FORMATS``.
        elements: what the events shall be made of besides tracks: ``clusters`` or ``hits``.
        detector: that the events were measured with; None = the default of the format.

    Raises:
        DataError: the file cannot be opened, is of no known format, has no such elements, or is of a format
            whose results depend on no detector.
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
        if detector is not None and chosen.default_detector is None:
            raise DataError(f"{path}: results of {chosen.name} files depend on no detector; drop --detector")
        yield chosen(source, chosen.schemas[elements], detector)


def elements_of_format(known: type[Conversion]) -> str:
    """Describe the elements of a format, e.g. ``a file of Delphes has tracks and towers``."""
    kinds = dict.fromkeys(f"{kind.name}s" for schema in known.schemas.values() for kind in schema.kinds)
    return f"a file of {known.name} has {' and '.join(kinds)}"
