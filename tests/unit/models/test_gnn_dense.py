import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.config.detector import CLIC
from mlpf.layers.input_normalization import fit_normalization
from mlpf.models import PFNetDense, build_model
from mlpf.models.interface import OUTPUT_NAMES, concatenate_outputs, output_widths
from tests.support.events import clic_like_events
from tests.support.layer_contract import num_weights
from tests.support.models import LEARNED_PAIRS, TINY_GRAPH, tiny_config, tiny_model
from tests.support.number_formats import skip_if_it_aborts

# float32 sums in another order, relative because momenta have no upper bound
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
# Concatenation, both options that add inputs, degrees; normalisation is set in the test that needs it.
VARIANTS = {
    "additive": {},
    "concat": {"node_update_mode": "concat", "skip_connection": True, "num_graph_layers_id": 2},
    "concat without node encoding": {"node_update_mode": "concat", "do_node_encoding": False},
    "helix": {"input_encoding": "clic_helix", "use_normalizer": True},
    "l1 distance": {"combined_graph_layer": {**TINY_GRAPH, "kernel": {"dist_norm": "l1"}}},
    "learned pairs": {"combined_graph_layer": LEARNED_PAIRS},
    "positions": {
        "combined_graph_layer": {**TINY_GRAPH, "bin_order": "projection", "position_scales": [20.0, 200.0]}
    },
}


def outputs(model, x):
    return {name: np.asarray(value) for name, value in model(x).items()}


@functools.cache
def variant_model(variant):
    """One model per variant for the tests that only call it."""
    return normalized_model(**VARIANTS[variant])


def normalized_model(**changes):
    model = tiny_model(**changes)
    if model.input_normalization is not None:
        model.input_normalization.set_statistics(fit_normalization([clic_like_events(8, 60, seed=9)]))
    return model


def test_default_model_has_the_published_number_of_weights():
    model = build_model()
    assert num_weights(model.trainable_weights) == 5_468_815
    assert num_weights(model.non_trainable_weights) == 153_600


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
    assert concatenate_outputs(found).shape == (3, 37, 14)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_within_the_same_bins_does_not_change_real_elements(variant):
    model = variant_model(variant)
    x = clic_like_events(2, 37)
    padded = np.concatenate([x, np.zeros((2, 48 - 37, 17), np.float32)], axis=1)
    short, long = outputs(model, x), outputs(model, padded)
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(short[name], long[name][:, :37], **TOLERANCE)


def test_padding_with_more_bins_does_not_change_real_elements_in_projection_order():
    model = variant_model("positions")
    x = clic_like_events(2, 37)
    padded = np.concatenate([x, np.zeros((2, 160 - 37, 17), np.float32)], axis=1)
    short, long = outputs(model, x), outputs(model, padded)
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(short[name], long[name][:, :37], **TOLERANCE)


def test_several_bins_do_not_depend_on_the_order_of_elements_in_projection_order(rng):
    model = variant_model("positions")
    x = clic_like_events(1, 80)
    order = rng.permutation(80)
    straight, permuted = outputs(model, x), outputs(model, x[:, order])
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(straight[name][:, order], permuted[name], **TOLERANCE)


def test_one_bin_does_not_depend_on_the_order_of_elements(rng):
    model = variant_model("helix")
    x = clic_like_events(2, 16)
    order = rng.permutation(16)
    straight, permuted = outputs(model, x), outputs(model, x[:, order])
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(straight[name][:, order], permuted[name], **TOLERANCE)


def test_events_of_a_batch_do_not_see_each_other():
    model = variant_model("additive")
    x = clic_like_events(3, 40)
    together, alone = outputs(model, x), outputs(model, x[1:2])
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(together[name][1:2], alone[name], **TOLERANCE)


@pytest.mark.parametrize("graph", [TINY_GRAPH, LEARNED_PAIRS], ids=["gaussian", "learned pairs"])
def test_gradients_reach_every_weight(graph):
    # pt as a correction: otherwise the second output of the pt head is unused
    changes = {"output_decoding": {"pt_as_correction": True}, "use_normalizer": True}
    model = normalized_model(combined_graph_layer=graph, **changes)
    x = clic_like_events(2, 40)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(value**2) for value in model(x, training=True).values())
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(loss, [w.value for w in model.trainable_weights]), strict=True
    ):
        assert gradient is not None, weight.path
        values = np.asarray(tf.convert_to_tensor(gradient))
        assert np.isfinite(values).all(), weight.path
        assert np.abs(values).max() > 0, weight.path


def test_graph_of_unknown_shape_gives_the_eager_result():
    model = variant_model("helix")
    signature = [tf.TensorSpec((None, None, 17), tf.float32)]
    traced = tf.function(lambda x: model(x), input_signature=signature)
    x = clic_like_events(2, 50)
    eager, graph = outputs(model, x), traced(x)
    for name in OUTPUT_NAMES:
        np.testing.assert_allclose(eager[name], np.asarray(graph[name]), **TOLERANCE)


def test_nan_and_inf_inputs_give_finite_outputs():
    x = clic_like_events(1, 20)
    x[0, 0, 5], x[0, 1, 8], x[0, 12, 1] = np.nan, np.inf, -np.inf
    for variant in VARIANTS:
        assert all(np.isfinite(v).all() for v in outputs(variant_model(variant), x).values())


def test_an_event_without_elements_gives_zeros():
    found = outputs(variant_model("additive"), np.zeros((1, 16, 17), np.float32))
    assert all((values == 0).all() for values in found.values())


def test_mixed_precision_stays_close_to_float32():
    skip_if_it_aborts("mixed_bfloat16")
    x = clic_like_events(2, 16)
    full = normalized_model(use_normalizer=True)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build_model(tiny_config(use_normalizer=True))
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(full.get_weights())
    expected, found = outputs(full, x), outputs(mixed, x)
    for name in OUTPUT_NAMES:
        assert found[name].dtype == np.float32
        # bfloat16 has 8 bits; one bin, so no element changes bins
        np.testing.assert_allclose(found[name], expected[name], rtol=0.1, atol=0.1)


def test_saved_weights_give_the_same_outputs(tmp_path):
    model = variant_model("helix")
    x = clic_like_events(1, 30)
    model.save_weights(tmp_path / "model.weights.h5")
    copy = tiny_model(seed=2, **VARIANTS["helix"])
    copy.load_weights(tmp_path / "model.weights.h5")
    for name, values in outputs(model, x).items():
        np.testing.assert_array_equal(values, outputs(copy, x)[name])


def test_saved_model_gives_the_same_outputs(tmp_path):
    model = variant_model("helix")
    x = clic_like_events(1, 30)
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    for name, values in outputs(model, x).items():
        np.testing.assert_array_equal(values, outputs(copy, x)[name])


def test_more_bins_than_allowed_are_refused():
    model = tiny_model(combined_graph_layer={**TINY_GRAPH, "max_num_bins": 2})
    with pytest.raises(ValueError, match="40 elements make 3 bins of 16, more than max_num_bins=2"):
        model(np.ones((1, 40, 17), np.float32))


@pytest.mark.parametrize("variant", ["helix", "concat", "positions", "l1 distance", "learned pairs"])
def test_compiled_by_xla_gives_the_eager_result(variant):
    model, x = variant_model(variant), clic_like_events(2, 48)
    compiled = tf.function(lambda x: model(x), jit_compile=True)(x)
    for name, values in outputs(model, x).items():
        np.testing.assert_allclose(values, np.asarray(compiled[name]), **TOLERANCE)


def test_positions_lie_on_the_face_of_the_detector():
    x = clic_like_events(1, 60)
    large = CLIC.model_copy(update={"face_radius_mm": 2000.0, "face_half_length_mm": 3000.0})
    graph = {**TINY_GRAPH, "position_scales": [50.0]}
    for changes in ({"input_encoding": "clic_helix"}, {"combined_graph_layer": graph}):
        usual, other = (build_model(tiny_config(**changes), detector=d) for d in (CLIC, large))
        other.set_weights(usual.get_weights())
        # the same weights and events: only the face differs
        assert np.abs(concatenate_outputs(usual(x)) - concatenate_outputs(other(x))).max() > 1e-3
    with pytest.raises(ValueError, match="position_scales need the face of the calorimeter"):
        build_model(tiny_config(combined_graph_layer=graph), detector=None)


def test_models_saved_before_they_told_their_face_are_of_clic():
    config = tiny_model(input_encoding="clic_helix").get_config()
    del config["face"]
    encoding = PFNetDense.from_config(config).encoding
    assert (encoding.radius, encoding.half_length) == CLIC.face_mm
