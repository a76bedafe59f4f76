"""Load weights of a model that differs. Weights that do not fit keep their first values.

A weight is identified by the names of its layers and its position in the innermost layer. A layer is loaded
completely or not at all: a bias is useless without its kernel.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras

from mlpf.errors import CheckpointError, one_line
from mlpf.files.run_directory import CheckpointFolder

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Match:
    """One weight of the model or of the file.

    Attributes:
        name: layers and position, joined by ``/``.
        shape: shape in the model; None if the model has no such weight.
        found: shape in the file; None if the file has no such weight.
        taken: whether it was loaded.
    """

    name: str
    shape: Shape | None
    found: Shape | None
    taken: bool

    @property
    def reason(self) -> str:
        """Why it was not loaded; empty if it was."""
        if self.taken:
            return ""
        if self.found is None:
            return "missing in the file"
        if self.shape is None:
            return "not in the model"
        if self.shape != self.found:
            return "shape differs"
        return "another weight of its layer does not fit"


def load_partial_weights(path: Path, model: keras.Model) -> list[Match]:
    """Load the weights that fit from a checkpoint folder or a ``.weights.h5`` file into ``model``.

    Args:
        path: folder or file.
        model: built model.

    Returns:
        One entry per weight of the model, then one per weight that only the file has.

    Raises:
        CheckpointError: the file is missing or damaged, or nothing in it fits.
    """
    file = CheckpointFolder(path).weights if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; give a checkpoint folder or a .weights.h5 file")
    with tempfile.TemporaryDirectory() as folder:
        # Save the model, replace numbers in the file, load it: Keras handles the file format.
        own = CheckpointFolder(Path(folder)).weights
        model.save_weights(own)
        try:
            # A copy, since a file in use elsewhere may be locked.
            source = Path(shutil.copy(file, Path(folder) / "source.h5"))
            with h5py.File(source) as saved, h5py.File(own, "r+") as wanted:
                matches = _copy(saved, wanted)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{file}: damaged, or no file of weights ({one_line(error)})") from None
        if not any(match.taken for match in matches):
            raise CheckpointError(
                f"{file}: none of its weights fits the model; compare the sections parameters and dataset of "
                "both configurations"
            )
        model.load_weights(own)
    return matches


def _copy(saved: h5py.File, wanted: h5py.File) -> list[Match]:
    """Copy the layers that fit from one file into the other."""
    sources, targets = dict(_weights(saved)), dict(_weights(wanted))
    misfits = {
        name.rpartition("/")[0]
        for name in sources.keys() | targets.keys()
        if name not in sources or name not in targets or sources[name].shape != targets[name].shape
    }
    matches = []
    for name, target in targets.items():
        taken = name.rpartition("/")[0] not in misfits
        if taken:
            target[...] = sources[name][...]
        matches.append(Match(name, target.shape, sources[name].shape if name in sources else None, taken))
    matches += [Match(name, None, sources[name].shape, False) for name in sources.keys() - targets.keys()]
    return matches


def _weights(group: h5py.Group, layers: tuple[str, ...] = ()) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield names and arrays below a group of a file that Keras wrote.

    Keras stores layers under attribute names of the model or numbers them by class. The group ``vars`` of a
    layer has the name of the layer. Numbers shift if a layer is added, so chosen names are preferred.
    """
    for key, child in group.items():
        if key == "vars":
            for index, array in child.items():
                yield "/".join((*layers, index)), array
        elif isinstance(child, h5py.Group):
            name = child["vars"].attrs.get("name") if "vars" in child else ""
            chosen = name if name is not None and not _made_up(name, key) else key
            yield from _weights(child, (*layers, chosen) if chosen else layers)


def _made_up(name: str, key: str) -> bool:
    """Return whether a name is the default name of a layer in Keras: its class with a number."""
    return bool(name) and re.sub(r"_\d+$", "", name) == re.sub(r"_\d+$", "", key)
