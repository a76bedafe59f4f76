"""Recipe of proton collisions from Delphes."""

import tensorflow_datasets as tfds
from etils import epath

from mlpf.data.dataset.examples import ElementDatasetBuilder, delphes_configs
from mlpf.physics.schemas import SCHEMAS


class Delphes(ElementDatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Events of tracks and calorimeter towers."""

    name = "delphes_pf"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and towers, from ROOT files or the published pickles; splits by file name.",
    }
    SCHEMA = SCHEMAS["delphes"]
    BUILDER_CONFIGS = delphes_configs()
