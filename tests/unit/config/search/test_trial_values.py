import pytest

from mlpf.config.schema import Config
from mlpf.config.search.schema import ParameterSpace
from mlpf.config.search.trial_values import all_values, base_data, shown, validated, value_at, with_values
from mlpf.errors import ConfigError
from tests.support.configs import SMALL

DATA = base_data(Config.model_validate({**SMALL, "hypertune": {"space": "gnn_dense"}}))
KERNEL = "parameters.combined_graph_layer.kernel"
MESSAGE = "parameters.combined_graph_layer.node_message"


def test_the_data_of_a_trial_have_no_search():
    assert DATA["hypertune"] is None


def test_values_are_set_and_the_data_stay_as_they_are():
    before = value_at(DATA, "setup.lr")
    new = with_values(DATA, {"setup.lr": 0.5, "train_test_datasets.physical.batch_per_gpu": 3})
    assert (value_at(new, "setup.lr"), value_at(new, "train_test_datasets.physical.batch_per_gpu")) == (
        0.5,
        3,
    )
    assert value_at(DATA, "setup.lr") == before


def test_sections_that_are_left_out_come_with_their_first_key():
    assert with_values(DATA, {"callbacks.comet.project": "x"})["callbacks"]["comet"] == {"project": "x"}


def test_a_path_through_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"setup\.lr\.x: lr is a value, not a section"):
        with_values(DATA, {"setup.lr.x": 1})


@pytest.mark.parametrize("first", ["type", "num_channels"])
def test_another_variant_drops_the_keys_it_does_not_have(first):
    values = {
        f"{KERNEL}.type": "NodePairTrainableKernel",
        f"{KERNEL}.num_channels": 3,
        f"{MESSAGE}.type": "NodeMessageLearnable",
        f"{MESSAGE}.output_dim": 24,
    }
    if first == "num_channels":
        values = dict(reversed(values.items()))
    config = validated(DATA, values)
    assert isinstance(config, Config)
    layer = config.parameters.combined_graph_layer
    assert (layer.kernel.num_channels, layer.node_message.output_dim) == (3, 24)


def test_a_value_can_be_a_whole_section():
    kernel = {"type": "NodePairGaussianKernel", "dist_mult": 0.3}
    assert validated(DATA, {KERNEL: kernel}).parameters.combined_graph_layer.kernel.dist_mult == 0.3


def test_one_value_for_several_keys():
    space = {"a": ParameterSpace(int=[1, 9], also=["b", "c"]), "d": ParameterSpace(int=[1, 9], also=["e"])}
    assert all_values({"a": 3, "x": 1}, space) == {"a": 3, "x": 1, "b": 3, "c": 3}


def test_values_as_text():
    assert shown({"setup.lr": 0.1, "setup.optimizer": "adam"}) == "setup.lr=0.1, setup.optimizer=adam"
