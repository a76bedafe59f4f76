"""Simulated files under the names of collections that a detector has."""

from functools import partial

from mlpf.config.detector import CLIC, CollectionsConfig
from mlpf.simulation.clic.edm4hep_layouts import Layout, LayoutName, make_layout


def layout_for(name: LayoutName, collections: CollectionsConfig) -> Layout:
    """Return a layout with the collections of a detector.

    A list of hits that is shorter than CLIC's drops the collections at its end, which the simulation leaves
    empty: barrel and end cap come first.
    """
    return make_layout(name, partial(_named, names_of(collections)))


def names_of(collections: CollectionsConfig) -> dict[str, str]:
    """Return CLIC's name of a collection -> that of a detector; those that it does not have are left out."""
    names: dict[str, str] = {}
    for role, of_clic in CLIC.collections.model_dump().items():
        own = getattr(collections, role)
        if isinstance(own, list):
            names |= dict(zip(of_clic, own, strict=False))
        elif own is not None:
            names[of_clic] = own
    # Candidates have another name in the newer layouts: the last one.
    names[CLIC.collections.candidates[-1]] = collections.candidates[-1]
    return names


def _named(names: dict[str, str], branch: str) -> str | None:
    """Return the name of a branch, such as ``_X_hits`` or ``X#1`` of collection X."""
    known = (name for value in CLIC.collections.model_dump().values() for name in _listed(value))
    collection = max(
        (name for name in known if branch.removeprefix("_").startswith(name)), key=len, default=""
    )
    if not collection:
        return branch
    own = names.get(collection)
    return None if own is None else branch.replace(collection, own, 1)


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]
