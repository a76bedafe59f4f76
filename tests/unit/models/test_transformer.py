import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.config.data_schema import DatasetConfig
from mlpf.config.detector import CLIC
from mlpf.layers.helix_encoding import CLIC_COLUMNS, NUM_HELIX_FEATURES, helix_features
from mlpf.layers.input_normalization import fit_normalization
from mlpf.models.interface import OUTPUT_NAMES, output_widths
from mlpf.models.transformer import PFNetTransformer
from tests.support.events import clic_like_events
from tests.support.layer_contract import num_weights
from tests.support.models import tiny_model, tiny_transformer
from tests.support.number_formats import skip_if_it_aborts

# float32 sums in another order, relative because momenta have no upper bound
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
HEADS = {f"{head}_hidden_dim": 8 for head in ("id", "charge", "pt", "eta", "phi", "energy")}
D, H, M, F = 16, 2, 24, 20
VARIANTS = {"stacks": {}, "queries": {"streams": "queries"}, "elu": {"kernel": "elu"}}
BLOCK = 4 * D * D + (D * F + F + F * D + D) + 2 * D


def make(streams="stacks", kernel="softmax", **changes):
    keras.utils.set_random_seed(1)
    arguments = {
        "num_input_features": 17,
        "num_input_classes": 3,
        "num_output_classes": 6,
        "input_encoding": "clic",
        "use_normalizer": True,
        "hidden_dim": D,
        "num_layers_encoder": 1,
        "num_layers_decoder_id": 1,
        "num_layers_decoder_reg": 2,
        "streams": streams,
        "seed": 3,
        "block": {"num_heads": H, "num_features": M, "ffn_dim": F, "kernel": kernel},
        "output_decoding": HEADS,
    }
    model = PFNetTransformer(**{**arguments, **changes})
    model.build((None, None, 17))
    if model.input_normalization is not None:
        model.input_normalization.set_statistics(fit_normalization([clic_like_events(8, 60, seed=9)]))
    return model


@functools.cache
def variant_model(variant):
    """One model per variant for the tests that only call it."""
    return make(**VARIANTS[variant])


def outputs(model, x):
    return {name: np.asarray(value) for name, value in model(x).items()}


def test_number_of_weights_follows_from_the_widths():
    stacks, queries = variant_model("stacks"), variant_model("queries")
    heads = num_weights(stacks.decoding.trainable_weights)
    embedding = (3 + 16) * D + D
    assert num_weights(stacks.trainable_weights) == embedding + 4 * BLOCK + heads
    assert num_weights(queries.trainable_weights) == embedding + 4 * BLOCK + heads + 2 * D


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_have_the_shapes_of_the_contract(variant):
    x = clic_like_events(3, 37)
    found = outputs(variant_model(variant), x)
    assert {name: (v.shape, str(v.dtype)) for name, v in found.items()} == {
        name: ((3, 37, width), "float32") for name, width in output_widths(6).items()
    }
    for values in found.values():
        assert np.isfinite(values).all()
        assert (values[x[..., 0] == 0] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_neither_padding_nor_order_nor_other_events_matter(variant, rng):
    model, x = variant_model(variant), clic_like_events(3, 37)
    order = rng.permutation(37)
    found = outputs(model, x)
    padded = outputs(model, np.concatenate([x, np.zeros((3, 150, 17), np.float32)], axis=1))
    permuted, alone = outputs(model, x[:, order]), outputs(model, x[1:2])
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(found[name], padded[name][:, :37], **TOLERANCE)
        np.testing.assert_allclose(found[name][:, order], permuted[name], **TOLERANCE)
        np.testing.assert_allclose(found[name][1:2], alone[name], **TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_element_sees_the_others(variant):
    """One element changes; with attention every other real one does too."""
    model, x = variant_model(variant), clic_like_events(1, 20)
    other = x.copy()
    other[0, 0, 1:6] *= 3
    before, after = outputs(model, x)["cls"], outputs(model, other)["cls"]
    real = x[0, 1:, 0] != 0
    assert (np.abs(before - after)[0, 1:][real].max(axis=-1) > 1e-6).all()


@pytest.mark.parametrize("streams", ["stacks", "queries"])
def test_gradients_reach_every_weight(streams):
    # pt as a correction: otherwise the second output of the pt head is unused
    model, x = make(streams, output_decoding={**HEADS, "pt_as_correction": True}), clic_like_events(2, 30)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(value**2) for value in model(x, training=True).values())
    weights = model.trainable_weights
    for weight, gradient in zip(weights, tape.gradient(loss, [w.value for w in weights]), strict=True):
        assert gradient is not None, weight.path
        assert np.abs(np.asarray(tf.convert_to_tensor(gradient))).max() > 0, weight.path


def test_every_block_has_its_own_directions():
    model = variant_model("stacks")
    blocks = [block for stack in model.stacks.values() for block in stack]
    drawn = [np.asarray(block.attention.projection) for block in blocks]
    assert all(not np.array_equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_copy_from_its_configuration_and_weights_gives_the_same(tmp_path):
    model, x = variant_model("queries"), clic_like_events(2, 25)
    model.save_weights(tmp_path / "a.weights.h5")
    copy = PFNetTransformer.from_config(model.get_config())
    copy.build((None, None, 17))
    copy.load_weights(tmp_path / "a.weights.h5")
    for name, values in outputs(model, x).items():
        np.testing.assert_array_equal(values, outputs(copy, x)[name])


@pytest.mark.parametrize("make_tiny", [tiny_transformer, tiny_model])
def test_positions_are_computed_from_the_columns_of_the_schema(make_tiny, rng):
    """Hits have other columns than clusters: the encoding must use theirs, not the default ones."""
    schema = DatasetConfig(schema="clic_hits")
    model = make_tiny(schema="clic_hits", input_encoding="clic_helix")
    x = rng.normal(size=(1, 6, schema.num_input_features)).astype(np.float32) * 100
    x[..., 0] = [1, 1, 1, 2, 2, 2]
    found = np.asarray(model.encoding(x, x))[..., -NUM_HELIX_FEATURES:]
    np.testing.assert_array_equal(found, helix_features(x, *CLIC.face_mm, schema.helix_columns))
    assert np.abs(found - helix_features(x, *CLIC.face_mm, CLIC_COLUMNS)).max() > 1e-2


def test_nan_and_inf_inputs_give_finite_outputs():
    x = clic_like_events(1, 20)
    x[0, 0, 5], x[0, 1, 8], x[0, 12, 1] = np.nan, np.inf, -np.inf
    assert all(np.isfinite(v).all() for v in outputs(variant_model("stacks"), x).values())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("streams", ["stacks", "queries"])
def test_mixed_precision_stays_close_to_float32(policy, streams):
    skip_if_it_aborts(policy)
    x, full = clic_like_events(2, 40), make(streams)
    keras.config.set_dtype_policy(policy)
    try:
        mixed = make(streams)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(full.get_weights())
    expected = outputs(full, x)
    with tf.GradientTape() as tape:
        found = mixed(x, training=True)
        loss = sum(tf.reduce_sum(value**2) for value in found.values())
    weights = [w.value for w in mixed.trainable_weights]
    gradients = [g for g in tape.gradient(loss, weights) if g is not None]
    assert all(np.isfinite(np.asarray(tf.convert_to_tensor(g))).all() for g in gradients)
    for name in OUTPUT_NAMES:
        assert found[name].dtype == tf.float32
        # bfloat16 has 8 bits, float16 has 11
        tolerance = 0.1 if policy == "mixed_bfloat16" else 0.01
        np.testing.assert_allclose(np.asarray(found[name]), expected[name], rtol=tolerance, atol=tolerance)


def test_an_event_without_elements_gives_zeros():
    found = outputs(variant_model("stacks"), np.zeros((1, 16, 17), np.float32))
    assert all((values == 0).all() for values in found.values())


def test_unknown_streams_are_named():
    with pytest.raises(ValueError, match="streams='three', expected one of stacks, queries"):
        make("three")


def test_compiled_by_xla_gives_the_eager_result():
    model, x = variant_model("stacks"), clic_like_events(2, 32)
    compiled = tf.function(lambda x: model(x), jit_compile=True)(x)
    for name, values in outputs(model, x).items():
        np.testing.assert_allclose(values, np.asarray(compiled[name]), **TOLERANCE)


def test_redrawn_directions_compile_with_xla():
    """Other random numbers than without XLA, but orthogonal directions at the same steps."""
    model = make(block={"num_heads": H, "num_features": M, "ffn_dim": F, "redraw_interval": 2})
    x = tf.constant(clic_like_events(1, 16))
    compiled = tf.function(lambda x: model(x, training=True)["cls"], jit_compile=True)
    projection = model.stacks["encoder"][0].attention.projection
    seen = [np.array(projection)]
    for _ in range(3):
        assert np.isfinite(compiled(x)).all()
        seen.append(np.array(projection))
    assert [np.array_equal(a, b) for a, b in itertools.pairwise(seen)] == [True, False, True]
    unit = seen[-1][: D // H] / np.linalg.norm(seen[-1][: D // H], axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.eye(D // H), atol=1e-5)


def test_the_encoding_gets_the_columns_of_the_schema():
    columns = DatasetConfig(schema="clic_hits").helix_columns
    model = make(input_encoding="clic_helix", helix_columns=columns, face=CLIC.face_mm)
    assert model.encoding.helix_columns == columns
    assert columns != make(input_encoding="clic_helix", face=CLIC.face_mm).encoding.helix_columns


@pytest.mark.parametrize("shape", [(1, 0, 17), (0, 5, 17)])
def test_no_event_and_no_element_give_nothing(shape):
    found = variant_model("stacks")(np.zeros(shape, np.float32))
    assert found["cls"].shape == (*shape[:2], 6)
