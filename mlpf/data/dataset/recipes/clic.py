"""Recipes of CLIC events from EDM4HEP files."""

import tensorflow_datasets as tfds
from etils import epath

from mlpf.data.dataset.examples import ElementDatasetBuilder, clic_configs
from mlpf.physics.schemas import SCHEMAS


class ClicClusters(ElementDatasetBuilder, skip_registration=True):
    """Events of tracks and calorimeter clusters."""

    name = "clic_edm4hep"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and Pandora-like clusters, closing truth 1.0.0, splits by file name.",
    }
    BUILDER_CONFIGS = clic_configs()


class ClicHits(ElementDatasetBuilder, skip_registration=True):
    """Events of tracks and calorimeter hits."""

    name = "clic_edm4hep_hits"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and calorimeter hits, closing truth 1.0.0, splits by file name.",
    }
    SCHEMA = SCHEMAS["clic_hits"]
    BUILDER_CONFIGS = clic_configs()
