"""What each figure of a report shows, in one sentence."""

_FIGURES = {
    "jet_response": "Reconstructed over generated pt of matched jets; below, the ratio to the baseline.",
    "jet_response_binned": "Median and IQR/median of the jet response against the pt of the generated jet.",
    "met_response": ("Reconstructed over generated missing pt of events; below, the ratio to the baseline."),
    "energy_response": "Reconstructed over generated energy of events; below, the ratio to the baseline.",
    "confusion": "Share of the elements of each target class that network and baseline give each class.",
    "num_elements": "Number of elements per event, all and by kind.",
    "validation_jets": "Jet response of the network on validation events after each epoch.",
    "validation_met": "Missing pt response of the network on validation events after each epoch.",
}
# Beginning of a name, followed by that of a class or a loss.
_SUMS, _EFFICIENCY, _LOSS = "sums_", "efficiency_", "loss"


def figure_caption(stem: str) -> str:
    """Return the sentence of a figure.

    Args:
        stem: name of the figure, without the dataset and the suffix of the file.

    Raises:
        KeyError: there is no such figure.
    """
    if stem.startswith(_SUMS):
        name = stem.removeprefix(_SUMS).replace("_", " ")
        return f"Number and energy per event of particles of class {name}; below, the ratio to generated."
    if stem.startswith(_EFFICIENCY):
        name = stem.removeprefix(_EFFICIENCY).replace("_", " ")
        return f"Efficiency and fake rate of class {name} against the energy of the particle."
    if stem == _LOSS:
        return "Total loss of training and validation after each epoch."
    if stem.endswith(_LOSS):
        return f"Term {stem} of the loss, of training and validation, after each epoch."
    return _FIGURES[stem]
