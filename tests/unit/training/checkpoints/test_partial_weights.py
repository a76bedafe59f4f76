import re

import numpy as np
import pytest

from mlpf.errors import CheckpointError
from mlpf.training.checkpoints.partial_weights import load_partial_weights
from tests.support.models import HEADS, tiny_model, tiny_transformer


def save(model, folder):
    folder.mkdir(exist_ok=True)
    model.save_weights(folder / "model.weights.h5")
    return folder


def moved_from(model, before):
    """Paths of the weights that changed, without the name of the model."""
    return {
        w.path.split("/", 1)[1]
        for w, old in zip(model.weights, before, strict=True)
        if (np.array(w) != old).any()
    }


def by_reason(matches):
    found = {}
    for match in matches:
        found.setdefault(match.reason or "taken", set()).add(match.name)
    return found


MODELS = [
    lambda seed: tiny_model(seed, use_normalizer=True),
    lambda seed: tiny_transformer(seed, streams="queries"),
]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("as_file", [True, False])
def test_a_model_of_the_same_kind_takes_everything(tmp_path, make, as_file):
    source, target = make(1), make(2)
    folder = save(source, tmp_path)

    matches = load_partial_weights(folder / "model.weights.h5" if as_file else folder, target)

    assert all(match.taken for match in matches)
    assert len({match.name for match in matches}) == len(matches) == len(target.weights)
    for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "first"), [(tiny_model, "node_encoding/dense"), (tiny_transformer, "embedding")]
)
def test_clusters_to_hits_takes_all_but_what_sees_the_columns(tmp_path, make, first):
    source = make(1, use_normalizer=True)
    target = make(2, schema="clic_hits", use_normalizer=True)
    own = {w.path: np.array(w) for w in target.weights}

    found = by_reason(load_partial_weights(save(source, tmp_path), target))

    assert found.pop("shape differs") >= {f"{first}/0", "input_normalization/0"}
    assert f"{first}/1" in found.pop("another weight of its layer does not fit")
    assert set(found) == {"taken"}
    for ours, theirs in zip(target.weights, source.weights, strict=True):
        kept = re.search(f"/({first}(_0)?|input_normalization)/", ours.path)
        np.testing.assert_array_equal(ours, own[ours.path] if kept else theirs)


def test_blocks_are_found_by_their_names_and_not_by_their_number(tmp_path):
    """Keras numbers the blocks of all stacks in one row: an encoder block more shifts the others."""
    source = tiny_transformer(1)
    target = tiny_transformer(2, num_layers_encoder=2)

    found = by_reason(load_partial_weights(save(source, tmp_path), target))

    assert all(name.startswith("encoder_1/") for name in found["missing in the file"])
    weights = {w.path: np.array(w) for w in source.weights}
    for weight in target.weights:
        if "/encoder_1/" not in weight.path and "rms_normalization" not in weight.path:
            np.testing.assert_array_equal(weight, weights[weight.path])


def test_weights_beside_the_model_are_named(tmp_path):
    source = tiny_model(1, num_graph_layers_id=2)
    target = tiny_model(2)

    found = by_reason(load_partial_weights(save(source, tmp_path), target))

    assert all(name.startswith("cg_id_1/") for name in found.pop("not in the model"))
    assert set(found) == {"taken"}


def test_a_file_without_anything_that_fits_is_refused_and_changes_nothing(tmp_path):
    model = tiny_transformer(1)
    before = model.get_weights()
    other = tiny_model(2, output_decoding={f"{head}_hidden_dim": 9 for head in HEADS} | {"layernorm": False})

    with pytest.raises(CheckpointError, match="none of its weights fits"):
        load_partial_weights(save(other, tmp_path), model)
    assert moved_from(model, before) == set()


def test_damaged_and_missing_files_are_reported(tmp_path):
    model = tiny_transformer(1)
    (tmp_path / "model.weights.h5").write_bytes(b"no")

    with pytest.raises(CheckpointError, match="damaged, or no file of weights"):
        load_partial_weights(tmp_path, model)
    with pytest.raises(CheckpointError, match="no such file"):
        load_partial_weights(tmp_path / "x.weights.h5", model)
