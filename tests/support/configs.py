"""A minimal valid configuration file for tests."""

from pathlib import Path

from mlpf.config.schema import Config

MINIMAL = """\
train_test_datasets:
  physical:
    batch_per_gpu: 8
    datasets: [clic_edm4hep/ttbar]
validation_dataset: clic_edm4hep/ttbar
evaluation_datasets:
  clic_edm4hep/ttbar: {batch_size: 4}
datasets:
  clic_edm4hep/ttbar: {version: 1.0.0, data_dir: nowhere}
"""

# One dataset, bins of 8; what Config.model_validate takes.
SMALL = {
    "parameters": {"combined_graph_layer": {"bin_size": 8, "max_num_bins": 8}},
    "train_test_datasets": {"physical": {"batch_per_gpu": 4, "datasets": ["a"]}},
    "validation_dataset": "a",
    "validation_batch_size": 8,
    "evaluation_datasets": {},
    "datasets": {"a": {"version": "1.0.0"}},
}


def searching(space, parameters=None, base=(), **hypertune) -> Config:
    """``SMALL`` with a search; ``parameters`` replaces its network, ``base`` sets keys by dotted path."""
    data = SMALL if parameters is None else {**SMALL, "parameters": parameters}
    config = Config.model_validate({**data, "hypertune": {"space": space, **hypertune}})
    return config.with_overrides(dict(base))


def write_config(folder: Path, extra: str = "", name: str = "test.yaml") -> Path:
    """Write the minimal configuration followed by ``extra`` YAML."""
    path = folder / name
    path.write_text(MINIMAL + extra, encoding="utf-8")
    return path
