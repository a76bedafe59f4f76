"""Recipe of proton collisions from Delphes."""

import tensorflow_datasets as tfds
from etils import epath

from mlpf.data.dataset.examples import ElementDatasetBuilder
from mlpf.physics.schemas import SCHEMAS

PROCESSES = {
    "ttbar": "pp -> top pair at 14 TeV, on average 200 further collisions",
    "qcd": "pp -> jets above 20 GeV at 14 TeV, on average 200 further collisions",
}


class Delphes(ElementDatasetBuilder, skip_registration=True):
    """Events of tracks and calorimeter towers."""

    name = "delphes_pf"
    pkg_dir_path = epath.Path(__file__).parent / name  # of README and citation; TFDS looks beside the module
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and towers, from ROOT files or the published pickles; splits by file name.",
    }
    SCHEMA = SCHEMAS["delphes"]
    BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS reads it from the class
        tfds.core.BuilderConfig(name=name, description=text) for name, text in PROCESSES.items()
    ]
