import tensorflow_datasets as tfds

from mlpf.data.dataset.examples import ElementDatasetBuilder, clic_configs
from mlpf.physics.schemas import SCHEMAS


class Builder(ElementDatasetBuilder):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and calorimeter hits, closing truth 1.0.0, splits by file name.",
    }
    SCHEMA = SCHEMAS["clic_hits"]
    BUILDER_CONFIGS = clic_configs()
