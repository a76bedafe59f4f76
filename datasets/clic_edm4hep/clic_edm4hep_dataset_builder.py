"""For `tfds build datasets/clic_edm4hep`; the recipe is in `mlpf.data.dataset.recipes`."""

from mlpf.data.dataset.recipes import ClicClusters


class Builder(ClicClusters):
    """Registered with TFDS under the name of this folder."""
