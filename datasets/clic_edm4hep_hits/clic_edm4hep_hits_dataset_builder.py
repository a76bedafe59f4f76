import tensorflow_datasets as tfds

from mlpf.data.builder import ElementDatasetBuilder
from mlpf.physics.schemas import SCHEMAS

PROCESSES = {
    "ttbar": "e+e- -> top pair",
    "qq": "e+e- -> quark pair",
    "zh_tautau": "e+e- -> ZH, H -> tau pair",
    "ww_fullhad": "e+e- -> WW, both hadronic",
    "ttbar_pu10": "e+e- -> top pair, on average ten overlaid e+e- -> photon pair interactions",
}
GUNS = ("neutron", "kaon0l", "pi", "pi0", "mu", "electron", "gamma")


class Builder(ElementDatasetBuilder):
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 - TFDS reads it from the class
        "1.0.0": "Tracks and calorimeter hits, closing truth 1.0.0, splits by file name.",
    }
    SCHEMA = SCHEMAS["clic_hits"]
    BUILDER_CONFIGS = [  # noqa: RUF012 - TFDS reads it from the class
        *(tfds.core.BuilderConfig(name=name, description=text) for name, text in PROCESSES.items()),
        *(
            tfds.core.BuilderConfig(name=f"single_{particle}", description=f"single {particle}, 1 to 100 GeV")
            for particle in GUNS
        ),
    ]
