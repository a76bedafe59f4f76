"""Recipes of the datasets of ``mlpf build``: one TFDS builder class per recipe.

README.md, CITATIONS.bib and TAGS.txt of a recipe are in the folder of its name.
"""

import difflib
import re
import types

import tensorflow_datasets as tfds
from etils import epath

from mlpf.data.dataset.examples import ElementDatasetBuilder, clic_configs, delphes_configs
from mlpf.errors import DataError
from mlpf.physics.schemas import SCHEMAS


# skip_registration is an argument of TFDS' metaclass hook, which type checkers do not see.
class ClicClusters(ElementDatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Events of tracks and calorimeter clusters."""

    name = "clic_edm4hep"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and Pandora-like clusters, closing truth 1.0.0, splits by file name.",
    }
    BUILDER_CONFIGS = clic_configs()


class ClicHits(ElementDatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Events of tracks and calorimeter hits."""

    name = "clic_edm4hep_hits"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and calorimeter hits, closing truth 1.0.0, splits by file name.",
    }
    SCHEMA = SCHEMAS["clic_hits"]
    BUILDER_CONFIGS = clic_configs()


class Delphes(ElementDatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Events of tracks and calorimeter towers."""

    name = "delphes_pf"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and towers, from ROOT files or the published pickles; splits by file name.",
    }
    SCHEMA = SCHEMAS["delphes"]
    BUILDER_CONFIGS = delphes_configs()


RECIPES: dict[str, type[ElementDatasetBuilder]] = {
    recipe.name: recipe for recipe in (ClicClusters, ClicHits, Delphes)
}

__all__ = ["RECIPES", "ClicClusters", "ClicHits", "Delphes", "find_recipe", "own_sample"]


# Folder names for TFDS and file systems that do not look like a version or a hidden file.
_OWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
_MAX_NAME = 100


def find_recipe(dataset: str) -> tuple[type[ElementDatasetBuilder], str]:
    """Return the builder class of ``<recipe>/<sample>`` and the name of the sample.

    A name that is not in the recipe is a sample of the user.

    Raises:
        DataError: no such recipe, or the name of the sample cannot be one of a folder.
    """
    name, _, sample = dataset.partition("/")
    if name not in RECIPES:
        raise DataError(f"{dataset}: no recipe {name!r}; recipes are {', '.join(RECIPES)}")
    configs = [config.name for config in RECIPES[name].BUILDER_CONFIGS]
    if sample in configs:
        return RECIPES[name], sample
    if not _OWN_NAME.fullmatch(sample) or len(sample) > _MAX_NAME:
        raise DataError(
            f"{dataset}: {sample!r} cannot be the name of a sample; give {name}/ and one of "
            f"{', '.join(configs)}, or a name of your own: letters, digits, _, + and -, at most {_MAX_NAME}"
        )
    return _with_sample(RECIPES[name], sample), sample


def _with_sample(recipe: type[ElementDatasetBuilder], sample: str) -> type[ElementDatasetBuilder]:
    """Return a recipe with one more sample."""
    own = tfds.core.BuilderConfig(name=sample, description="events of your own")
    content = {"name": recipe.name, "BUILDER_CONFIGS": [*recipe.BUILDER_CONFIGS, own]}
    return types.new_class(
        recipe.__name__, (recipe,), {"skip_registration": True}, lambda body: body.update(content)
    )


def own_sample(dataset: str) -> str | None:
    """Return a line for a sample of the user, with the most similar listed name; None for listed samples.

    Args:
        dataset: ``<recipe>/<sample>`` that ``find_recipe`` takes.
    """
    recipe, _, sample = dataset.partition("/")
    known = [config.name for config in RECIPES[recipe].BUILDER_CONFIGS]
    if sample in known:
        return None
    near = difflib.get_close_matches(sample, known, n=1, cutoff=0.8)
    return f"{dataset}: a sample of your own" + (f"; or did you mean {near[0]}?" if near else "")
