"""The datasets that ``mlpf build`` can make: one class per recipe, in the form that TFDS wants.

README.md, CITATIONS.bib and TAGS.txt of a recipe are in the folder of its name.
"""

from mlpf.data.dataset.examples import ElementDatasetBuilder
from mlpf.data.dataset.recipes.clic import ClicClusters, ClicHits
from mlpf.data.dataset.recipes.delphes import Delphes
from mlpf.errors import DataError

RECIPES: dict[str, type[ElementDatasetBuilder]] = {
    recipe.name: recipe for recipe in (ClicClusters, ClicHits, Delphes)
}

__all__ = ["RECIPES", "ClicClusters", "ClicHits", "Delphes", "find_recipe"]


def find_recipe(dataset: str) -> tuple[type[ElementDatasetBuilder], str]:
    """Return the builder class of ``<recipe>/<config>`` and the name of the config.

    Raises:
        DataError: no such recipe or config.
    """
    name, _, config = dataset.partition("/")
    if name not in RECIPES:
        raise DataError(f"{dataset}: no recipe {name!r}; recipes are {', '.join(RECIPES)}")
    configs = [c.name for c in RECIPES[name].BUILDER_CONFIGS]
    if config not in configs:
        raise DataError(f"{dataset}: {name} has no {config!r}; give {name}/ and one of {', '.join(configs)}")
    return RECIPES[name], config
