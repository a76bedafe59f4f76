"""For `tfds build datasets/delphes_pf`; the recipe is in `mlpf.data.dataset.recipes`."""

from mlpf.data.dataset.recipes import Delphes


class Builder(Delphes):
    """Registered with TFDS under the name of this folder."""
