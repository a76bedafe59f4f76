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


# What a physicist may ask for, and a key that must be found. "batch" and "seed" are in names, too.
WORDS = {
    "width": "parameters.combined_graph_layer.node_message.output_dim",
    "widths": "parameters.node_encoding_hidden_dim",
    "depth": "parameters.num_graph_layers_id",
    "learning rate": "setup.lr",
    "Learning Rate": "setup.lr_warmup_steps",
    "batch": "train_test_datasets.NAME.batch_per_gpu",
    "epochs": "setup.num_epochs",
    "GPU": "train_test_datasets.NAME.batch_per_gpu",
    "memory": "parameters.gradient_checkpointing",
    "precision": "setup.dtype",
    "field": "parameters.input_encoding",
    "seed": "setup.seed",
    "early stopping": "callbacks.early_stopping.patience",
    "warm-up": "setup.lr_warmup_steps",
    "dropout": "parameters.output_decoding.dropout",
}


@pytest.mark.parametrize(("words", "key"), WORDS.items())
def test_keys_are_found_by_what_they_are_about(words, key):
    found = explain(words)
    assert key in {k.key for k in found}
    assert len(found) < len(explain()) / 3
    assert not any(k.type.startswith("section") for k in found)


def test_all_words_must_fit():
    assert {k.key for k in explain("width class head")} == {"parameters.output_decoding.id_hidden_dim"}


def test_a_section_is_found_where_no_key_is():
    assert [k.key for k in explain("also log to Comet")] == ["callbacks.comet"]


@pytest.mark.parametrize(("words", "near"), [("precisoin", "precision"), ("learnig", "learning")])
def test_a_misspelt_word_suggests_the_nearest(words, near):
    with pytest.raises(ConfigError, match=rf"none is about it; did you mean .*{near}"):
        explain(words)
