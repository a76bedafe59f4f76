"""What all trials of a search are started with beside their configuration, in a file of its directory."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mlpf.atomic import atomic_write
from mlpf.errors import CheckpointError

OPTIONS_FILE = "options.json"


@dataclass(frozen=True)
class TrialOptions:
    """Limits of the events.

    Attributes:
        ntrain: most training events per dataset, None = all.
        ntest: most validation events, None = as configured.
    """

    ntrain: int | None = None
    ntest: int | None = None

    def arguments(self) -> list[str]:
        """Return them as options of ``mlpf hypertune trial``."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return [text for name, value in given.items() for text in (f"--{name}", str(value))]

    def write(self, directory: Path) -> None:
        """Write them into the directory of a search. Atomic."""
        with atomic_write(directory / OPTIONS_FILE) as part:
            part.write_text(json.dumps(asdict(self)))


def read_options(directory: Path) -> TrialOptions:
    """Return the options of the search in ``directory``.

    Raises:
        CheckpointError: missing or damaged.
    """
    file = directory / OPTIONS_FILE
    try:
        data = json.loads(file.read_text())
        options = TrialOptions(ntrain=data["ntrain"], ntest=data["ntest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: missing or damaged ({error}); write the limits of the events by hand, "
            'such as {"ntrain": null, "ntest": null}'
        ) from None
    if all(value is None or type(value) is int for value in asdict(options).values()):
        return options
    raise CheckpointError(f"{file}: ntrain and ntest must be whole numbers or null")
