import pytest

from mlpf.config.explain import explain
from mlpf.errors import ConfigError


def test_every_key_has_a_meaning():
    assert [k.key for k in explain() if not k.meaning] == []


def test_one_key_shows_type_default_and_meaning():
    (key,) = explain("setup.lr")
    assert (key.default, key.meaning) == ("0.001", "peak learning rate")


def test_prefix_selects_a_section():
    assert {k.key for k in explain("loss.cls_loss")} == {
        "loss.cls_loss",
        "loss.cls_loss.type",
        "loss.cls_loss.gamma",
        "loss.cls_loss.alpha",
    }


def test_free_sections_show_a_placeholder_name():
    assert explain("datasets.NAME.version")[0].default == "required"


def test_sections_that_may_be_left_out_are_no_free_sections():
    (section, *_) = explain("callbacks.comet")
    assert section.type == "section or null"
    assert explain("callbacks.comet.project")[0].default == "required"
    assert explain("datasets")[0].type == "sections by name"


def test_unknown_key_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean setup\.lr"):
        explain("setup.lrr")


def test_keys_of_variants_name_the_variant():
    keys = {k.key.removeprefix("parameters.combined_graph_layer."): k for k in explain()}
    assert keys["kernel.type"].default == "NodePairGaussianKernel"
    assert "NodePairTrainableKernel" in keys["kernel.type"].type
    assert keys["kernel.num_channels"].meaning.startswith("gnn_dense: NodePairTrainableKernel: channels")
    assert keys["node_message.output_dim"].meaning == "gnn_dense: width D of the node features"
