"""Options that all trials of a search share beside their configuration; kept in its directory."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mlpf.errors import CheckpointError
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import SEARCH_FILE


@dataclass(frozen=True)
class TrialOptions:
    """Event limits and devices of all trials. The batch size is proportional to the number of devices.

    Attributes:
        ntrain: maximum of training events per dataset; None = all.
        ntest: maximum of validation events; None = as configured.
        devices: GPUs of a trial; 1 is one GPU or the CPU.
    """

    ntrain: int | None = None
    ntest: int | None = None
    devices: int = 1

    def arguments(self) -> list[str]:
        """Return the event limits as options of ``mlpf hypertune trial``. It uses all visible devices."""
        given = {"--ntrain": self.ntrain, "--ntest": self.ntest}
        return [text for name, value in given.items() if value is not None for text in (name, str(value))]

    def write(self, directory: Path) -> None:
        """Write them into the directory of a search. Atomic."""
        with atomic_write(directory / SEARCH_FILE) as part:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_options(directory: Path) -> TrialOptions:
    """Return the options of the search in ``directory``.

    Raises:
        CheckpointError: missing or damaged.
    """
    file = directory / SEARCH_FILE
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        options = TrialOptions(ntrain=data["ntrain"], ntest=data["ntest"], devices=data["devices"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file}: missing or damaged ({error}); write the options that the search was started with, "
            'such as {"ntrain": null, "ntest": null, "devices": 1}'
        ) from None
    limits = (options.ntrain, options.ntest)
    if type(options.devices) is int and all(value is None or type(value) is int for value in limits):
        return options
    raise CheckpointError(f"{file}: ntrain and ntest must be whole numbers or null, devices a whole number")
