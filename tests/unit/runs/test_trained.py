"""What a configuration describes is built, or refused in one line."""

import pytest

from mlpf.config.schema import Config
from mlpf.errors import ConfigError
from mlpf.runs.trained import build_network
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
