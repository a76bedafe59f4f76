import numpy as np

from mlpf.training.loop.finite_checks import bad_outputs, bad_weights
from tests.support.fake_split import FakeSplit
from tests.support.models import tiny_model


def batch():
    X = FakeSplit(1, seed=1, min_elements=16, max_elements=16).fetch([0], ("X",))["X"]
    return X[None]


def test_a_sound_network_has_nothing_to_report():
    network = tiny_model()
    assert bad_weights(network) == {}
    assert bad_outputs(network, batch()) == ({}, {})


def test_the_first_layer_named_is_the_one_that_is_broken():
    network = tiny_model()
    message = network.cg_id[0].messages[0]
    theta = np.array(message.theta)
    theta[0, 0] = np.nan
    message.theta.assign(theta)

    (path,) = bad_weights(network)
    assert path == message.theta.path
    assert bad_weights(network)[path] == {"not_finite": 1, "size": theta.size}
    layers, _ = bad_outputs(network, batch())
    assert next(iter(layers)) == message.path
    assert layers[message.path]["not_finite"] > 0


def test_the_network_is_left_as_it_was():
    network, X = tiny_model(), batch()
    before = network(X)
    bad_outputs(network, X)
    assert not any("call" in layer.__dict__ for layer in network._flatten_layers())
    for name, values in network(X).items():
        np.testing.assert_array_equal(values, before[name])
