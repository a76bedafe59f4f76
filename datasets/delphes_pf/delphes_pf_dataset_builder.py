import tensorflow_datasets as tfds

from mlpf.data.dataset.examples import ElementDatasetBuilder, delphes_configs
from mlpf.physics.schemas import SCHEMAS


class Builder(ElementDatasetBuilder):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and towers, from ROOT files or the published pickles; splits by file name.",
    }
    SCHEMA = SCHEMAS["delphes"]
    BUILDER_CONFIGS = delphes_configs()
