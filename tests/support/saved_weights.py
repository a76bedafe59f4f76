"""The arrays of a file of weights, by their place in it."""

import h5py


def saved_weights(folder, name="model.weights.h5"):
    """Return place -> array of the weights in a checkpoint folder."""
    found = {}
    with h5py.File(folder / name) as file:
        file.visititems(lambda n, d: found.update({n: d[()]}) if isinstance(d, h5py.Dataset) else None)
    return found
