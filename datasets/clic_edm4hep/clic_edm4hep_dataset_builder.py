import tensorflow_datasets as tfds

from mlpf.data.dataset.examples import ElementDatasetBuilder, clic_configs


class Builder(ElementDatasetBuilder):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and Pandora-like clusters, closing truth 1.0.0, splits by file name.",
    }
    BUILDER_CONFIGS = clic_configs()
