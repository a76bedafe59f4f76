import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.combined_graph_layer import CombinedGraphLayer
from tests.support.layer_contract import LayerCase, check_layer, check_padding_invariance, set_values

VARIANTS = {
    "gaussian": {},
    "l1": {"kernel": {"type": "NodePairGaussianKernel", "dist_norm": "l1"}},
    "positions": {"position_scales": [0.5, 2.0]},
    "learnable": {
        "kernel": {"type": "NodePairTrainableKernel"},
        "node_message": {"type": "NodeMessageLearnable", "output_dim": 4},
    },
}


def make(**kwargs):
    settings = {
        "bin_size": 8,
        "max_num_bins": 8,
        "distance_dim": 3,
        "layernorm": True,
        "dropout": 0.0,
        "dist_activation": "elu",
        "ffn_dist_num_layers": 1,
        "ffn_dist_hidden_dim": 5,
        "kernel": {"type": "NodePairGaussianKernel", "dist_mult": 0.1, "clip_value_low": 0.0},
        "num_node_messages": 2,
        "node_message": {"type": "GHConvDense", "output_dim": 4, "activation": "elu"},
        "activation": "elu",
    }
    return CombinedGraphLayer(**{**settings, **kwargs})


def events(rng, num_elements, num_real):
    x = rng.normal(size=(2, num_elements, 4)).astype(np.float32)
    mask = np.tile(np.arange(num_elements) < num_real, (2, 1))
    return x * mask[..., None], mask


def test_contract(rng):
    # LayerNorm 8; distances 4*5+5 + 5*3+3; two messages of 3*16+4; codebook 3 x 4
    check_layer(
        LayerCase(
            lambda: make(dropout=0.1),
            events(rng, 24, 20),
            (2, 24, 4),
            num_trainable=8 + 43 + 104,
            num_frozen=12,
        )
    )


def test_padding_inside_the_same_bins_changes_nothing(rng):
    x, mask = events(rng, 16, 10)
    moved = x.copy()
    moved[:, 10:] = 7.0  # what padded elements hold must not matter either
    # float32 sums in another order
    check_padding_invariance(make(), (x, mask), (moved, mask), 10, 1e-6)


def test_hand_worked():
    layer = make(
        bin_size=2,
        layernorm=False,
        distance_dim=1,
        max_num_bins=4,
        ffn_dist_hidden_dim=1,
        activation="linear",
        dist_activation="linear",
        num_node_messages=1,
        kernel={"type": "NodePairGaussianKernel", "dist_mult": float(np.log(2.0)), "clip_value_low": 0.0},
        node_message={"type": "GHConvDense", "output_dim": 1, "activation": "linear"},
    )
    layer.build((None, None, 1))
    # z = x; gate 1/2, W_h = 0, theta = 2, so out = A x; codebook [1, 0]: negative x in the second bucket
    set_values(layer.ffn_dist, [[1.0]], [0.0], [[1.0]], [0.0])
    set_values(layer.messages[0], [[0.0]], [0.0], [[0.0]], [[2.0]])
    set_values(layer.binning, [[1.0, 0.0]])
    out = layer(np.array([[[-1.0], [2.0], [-3.0], [1.0]]]), np.ones((1, 4), bool))
    # bins {2, 1} and {-1, -3}; A = 2^-distance: 1/2 and 1/4, 2^-0.001 = 0.99931 on the diagonal
    # -1 - 3/4, 2 + 1/2, -3 - 1/4, 1 + 2/2
    assert np.asarray(out).ravel() == pytest.approx([-1.75, 2.5, -3.25, 2.0], abs=3e-3)


def test_contract_with_positions(rng):
    x, mask = events(rng, 24, 20)
    position = rng.normal(size=(2, 24, 3)).astype(np.float32)
    # as without positions, and two scales; the codebook hashes three coordinates more
    check_layer(
        LayerCase(
            lambda: make(position_scales=[0.5, 2.0]),
            (x, mask, position),
            (2, 24, 4),
            num_trainable=8 + 43 + 104 + 2,
            num_frozen=24,
        )
    )


@pytest.mark.parametrize("num_elements", [5, 8, 9, 20])
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_short_bin_gives_what_a_full_one_with_padding_gives(rng, variant, num_elements):
    x, mask = events(rng, 24, num_elements)
    position = rng.normal(size=(2, 24, 3)).astype(np.float32)
    cut = tuple(values[:, :num_elements] for values in (x, mask, position))
    # the order of an event depends on how many bins there are: projection looks at real elements only
    layer = make(bin_order="projection", **VARIANTS[variant])
    # float32 sums in another order
    check_padding_invariance(layer, cut, (x, mask, position), num_elements, 1e-6)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_open_axes_give_the_same_outputs_and_gradients(rng, variant):
    layer = make(**VARIANTS[variant])
    layer.build((None, None, 4))

    def step(x, mask, position):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x, mask, position)
            total = tf.reduce_sum(out**2)
        return out, *tape.gradient(total, [x, *layer.trainable_variables])

    spec = [
        tf.TensorSpec((None, None, 4)),
        tf.TensorSpec((None, None), tf.bool),
        tf.TensorSpec((None, None, 3)),
    ]
    graph = tf.function(step, autograph=False, input_signature=spec)
    for num_elements in (1, 5, 8, 13, 16):
        arrays = (*events(rng, num_elements, num_elements), rng.normal(size=(2, num_elements, 3)))
        given = [tf.constant(array, one.dtype) for array, one in zip(arrays, spec, strict=True)]
        for found, expected in zip(graph(*given), step(*given), strict=True):
            # float32 sums in another order
            np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("message", ["GHConvDense", "NodeMessageLearnable"])
def test_float16_stays_finite_over_many_messages_and_dropout(rng, message):
    pair = {"NodeMessageLearnable": {"type": "NodePairTrainableKernel"}}
    kernel = {"kernel": pair[message]} if message in pair else {}
    layer = make(
        num_node_messages=4,
        dropout=0.5,
        node_message={"type": message, "output_dim": 4},
        dtype="mixed_float16",
        **kernel,
    )
    x, mask = events(rng, 16, 12)
    layer(x, mask)
    for weight in layer.messages[0].trainable_weights:
        weight.assign(weight * 1e4)
    assert np.isfinite(np.asarray(layer(x, mask, training=True))).all()
