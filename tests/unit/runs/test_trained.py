"""Which directories hold one training; what a configuration describes is built, or refused in one line."""

import pytest

from mlpf.config.schema import Config
from mlpf.errors import CheckpointError, ConfigError
from mlpf.files.run_directory import ENSEMBLE_FILE, SEARCH_FILE
from mlpf.runs.trained import build_network, require_run
from tests.support.configs import SMALL
from tests.support.models import TINY_NETWORK


@pytest.mark.parametrize(
    "sizes",
    [{"distance_dim": 2**70}, {"bin_size": 2**62, "max_num_bins": 2**62}],
    ids=["keras", "tensorflow"],
)
def test_a_network_that_cannot_be_built_is_refused(sizes):
    config = Config.model_validate({**SMALL, "parameters": TINY_NETWORK})
    config = config.with_overrides({f"parameters.combined_graph_layer.{key}": n for key, n in sizes.items()})
    with pytest.raises(
        ConfigError, match=r"parameters: the network cannot be built \(\w+Error: .*change"
    ) as error:
        build_network(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "not a run directory, no config.resolved.yaml"),
        (
            ["config.resolved.yaml", ENSEMBLE_FILE],
            "holds an ensemble, expected the directory of one training",
        ),
        (["config.resolved.yaml", SEARCH_FILE], "holds a search.*give one of .*runs"),
    ],
)
def test_other_directories_are_refused_by_what_they_hold(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        require_run(tmp_path)


def test_a_run_is_taken(tmp_path):
    (tmp_path / "config.resolved.yaml").write_text("", encoding="utf-8")
    require_run(tmp_path)
