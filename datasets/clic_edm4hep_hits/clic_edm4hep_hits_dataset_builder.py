"""For `tfds build datasets/clic_edm4hep_hits`; the recipe is in `mlpf.data.dataset.recipes`."""

from mlpf.data.dataset.recipes import ClicHits


class Builder(ClicHits):
    """Registered with TFDS under the name of this folder."""
