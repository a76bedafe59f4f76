"""Layers are called otherwise inside, and as ever outside."""

import keras
import numpy as np

from mlpf.export.tracing import given_orders, plain_norms, recorded_orders
from mlpf.models.interface import concatenate_outputs
from tests.support.events import clic_like_events
from tests.support.models import tiny_model, tiny_transformer


def outputs(model, x):
    return np.asarray(concatenate_outputs(model(x)))


def test_orders_are_recorded_and_given_back():
    model, x = tiny_model(), clic_like_events(2, 40)
    before = outputs(model, x)
    with recorded_orders(model) as orders:
        np.testing.assert_array_equal(outputs(model, x), before)
    orders = [np.asarray(order) for order in orders]
    assert [order.shape for order in orders] == [(2, 40), (2, 40)]
    with given_orders(model, orders) as own:
        np.testing.assert_array_equal(outputs(model, x), before)
    for chosen, order in zip(own, orders, strict=True):
        np.testing.assert_array_equal(chosen, order)
    turned = [np.roll(order, 8, axis=1) for order in orders]
    with given_orders(model, turned):
        assert not np.array_equal(outputs(model, x), before)
    np.testing.assert_array_equal(outputs(model, x), before)


def test_a_transformer_has_no_orders():
    model, x = tiny_transformer(), clic_like_events(1, 20)
    with recorded_orders(model) as orders:
        model(x)
    assert orders == []


def test_plain_norms_are_those_of_keras():
    rng = np.random.default_rng(0)
    layer = keras.layers.LayerNormalization(epsilon=1e-6, name="norm")
    model = keras.Sequential([keras.Input((None, 5)), layer])
    layer.gamma.assign(rng.normal(size=5))
    layer.beta.assign(rng.normal(size=5))
    x = rng.normal(2.0, 3.0, (2, 3, 5)).astype(np.float32)
    centred = x.astype(np.float64) - x.mean(axis=-1, keepdims=True)
    by_hand = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    by_hand = by_hand * np.asarray(layer.gamma) + np.asarray(layer.beta)
    with plain_norms(model):
        plain = np.asarray(layer(x))
    np.testing.assert_allclose(plain, by_hand, atol=2e-6)
    np.testing.assert_allclose(np.asarray(layer(x)), by_hand, atol=2e-6)
    assert "call" not in vars(layer)
