import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.favor_attention import KERNELS, FavorAttention, orthogonal_projection
from tests.support.layer_contract import HALF, LayerCase, check_layer

B, N, D, H, M = 2, 7, 8, 2, 16


def inputs(rng, n=N, scale=1.0):
    x = (scale * rng.normal(size=(B, n, D))).astype(np.float32)
    mask = np.arange(n) < np.array([[n], [n - 2]])
    return x, mask


def exact_softmax(layer, x, mask):
    """Attention with all pairs, in float64."""
    wq, wk, wv, wo = (np.asarray(w, np.float64) for w in layer.trainable_weights)
    d = layer.head_dim
    q, k, v = x @ wq, x @ wk, x @ wv
    out = np.zeros_like(q)
    for h in range(layer.num_heads):
        of = slice(h * d, (h + 1) * d)
        scores = np.exp(q[..., of] @ k[..., of].transpose(0, 2, 1) / np.sqrt(d)) * mask[:, None, :]
        out[..., of] = scores / scores.sum(-1, keepdims=True) @ v[..., of]
    return out @ wo


def same_features_in_float64(layer, x, mask):
    """Attention through the layer's own random features, summed as logarithms that cannot underflow."""
    wq, wk, wv, wo = (np.asarray(w, np.float64) for w in layer.trainable_weights)
    w, d = np.asarray(layer.projection, np.float64), layer.head_dim
    x = x.astype(np.float64)
    q, k, v = x @ wq, x @ wk, x @ wv
    out = np.zeros_like(q)
    for h in range(layer.num_heads):
        of = slice(h * d, (h + 1) * d)
        a, b = (y[..., of] * d**-0.25 for y in (q, k))
        log_q, log_k = (y @ w.T - 0.5 * (y * y).sum(-1, keepdims=True) for y in (a, b))
        scores = np.logaddexp.reduce(log_q[:, :, None] + log_k[:, None], axis=-1)
        scores = np.where(mask[:, None], scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        out[..., of] = scores / scores.sum(-1, keepdims=True) @ v[..., of]
    return out @ wo


def with_features(num_features, seed, weights):
    layer = FavorAttention(H, num_features, seed=seed)
    layer.build((B, N, D))
    for variable, value in zip(layer.trainable_weights, weights, strict=True):
        variable.assign(value)
    return layer


@pytest.mark.parametrize("kernel", KERNELS)
def test_contract(rng, kernel):
    x, mask = inputs(rng)
    check_layer(
        LayerCase(
            make=lambda: FavorAttention(H, M, kernel=kernel),
            inputs=(x, x, mask),
            output_shape=(B, N, D),
            num_trainable=4 * D * D,
            num_frozen=M * D // H,
            mixed_dtype=HALF,
        )
    )


def test_directions_are_orthogonal_and_as_long_as_gaussian_vectors():
    d = 16
    w = orthogonal_projection(512, d, seed=1).astype(np.float64)
    blocks = w.reshape(-1, d, d)
    unit = blocks / np.linalg.norm(blocks, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        unit @ unit.transpose(0, 2, 1), np.broadcast_to(np.eye(d), blocks.shape), atol=1e-6
    )
    # <|w|^2> = d with variance 2 d: five standard errors.
    assert abs((w**2).sum(1).mean() - d) < 5 * np.sqrt(2 * d / 512)
    assert not np.allclose(w, orthogonal_projection(512, d, seed=2))


def test_hand_worked_elu_kernel():
    """One head of width 1, identity projections: phi(x) = elu(w x) + 1 with w = 1."""
    layer = FavorAttention(1, 1, kernel="elu")
    layer.build((1, 2, 1))
    for variable in layer.trainable_weights:
        variable.assign(np.ones((1, 1), np.float32))
    layer.projection.assign(np.ones((1, 1), np.float32))
    x = np.array([[[1.0], [-1.0]]], np.float32)
    phi = np.array([2.0, np.exp(-1.0)])
    expected = (phi * [1.0, -1.0]).sum() / phi.sum()  # the feature of the query cancels: M = 1
    out = np.asarray(layer(x, x, np.ones((1, 2), bool)))
    np.testing.assert_allclose(out[0, :, 0], expected, atol=1e-6)


def test_converges_to_exact_softmax_attention_as_the_features_grow(rng):
    keras.utils.set_random_seed(1)
    x, mask = inputs(rng, scale=0.25)  # within reach of 16 features
    first = FavorAttention(H, 4)
    first.build((B, N, D))
    weights = [np.asarray(w) for w in first.trainable_weights]
    exact = exact_softmax(first, x, mask)
    numbers = (16, 64, 256, 1024)
    errors = [
        np.sqrt(
            np.mean(
                [(np.asarray(with_features(m, seed, weights)(x, x, mask)) - exact) ** 2 for seed in range(12)]
            )
        )
        for m in numbers
    ]
    slope = np.polyfit(np.log(numbers), np.log(errors), 1)[0]
    assert -0.65 < slope < -0.4, (slope, errors)  # 1 / sqrt(M)
    assert errors[-1] < 0.05 * np.sqrt(np.mean(exact**2))


def test_the_kernel_is_unbiased_over_seeds():
    """The mean of phi(q) . phi(k) over seeds is exp(q . k), without the stabiliser that cancels."""
    rng = np.random.default_rng(3)
    q, k = 0.7 * rng.normal(size=(2, 8))
    exact = np.exp(q @ k)
    found = []
    for seed in range(2000):
        w = orthogonal_projection(8, 8, seed).astype(np.float64)
        found.append(np.mean(np.exp(w @ q - q @ q / 2) * np.exp(w @ k - k @ k / 2)))
    assert abs(np.mean(found) - exact) < 5 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("kernel", KERNELS)
def test_masked_keys_have_no_influence(rng, kernel):
    x, mask = inputs(rng)
    layer = FavorAttention(H, M, kernel=kernel)
    before = np.asarray(layer(x, x, mask))
    other = np.where(mask[..., None], x, 2.0).astype(np.float32)
    after = np.asarray(layer(x, other, mask))
    np.testing.assert_array_equal(before, after)
    assert not np.allclose(before, np.asarray(layer(x, other, np.ones_like(mask))))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_event_without_keys_gives_zero(rng, kernel):
    x, mask = inputs(rng)
    out = np.asarray(FavorAttention(H, M, kernel=kernel)(x, x, np.zeros_like(mask)))
    np.testing.assert_array_equal(out, 0.0)


def test_large_inputs_stay_finite(rng):
    x, mask = inputs(rng, scale=60.0)
    layer = FavorAttention(H, M)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = layer(x, x, mask)
    assert np.isfinite(np.asarray(out)).all()
    assert np.isfinite(np.asarray(tape.gradient(out, x))).all()


@pytest.mark.parametrize("scale", [1.0, 10.0, 60.0])
def test_no_query_is_lost_however_far_queries_and_keys_are_apart(rng, scale):
    """At 60 the exponents of a query and of all keys differ by more than float32 can hold."""
    wide = 64
    x = (scale * rng.normal(size=(B, 40, wide))).astype(np.float32)
    mask = np.arange(40) < np.array([[40], [33]])
    keras.utils.set_random_seed(1)
    layer = FavorAttention(H, M)
    found, expected = np.asarray(layer(x, x, mask)), same_features_in_float64(layer, x, mask)
    # Exponents of order 10 scale^2 are rounded to 1e-7 of themselves.
    np.testing.assert_allclose(found, expected, atol=3e-6 * scale**3, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_half_precision_gives_the_same_to_its_digits(rng, kernel):
    """float16 ends at 65504: features, sums and denominators must not be in it."""
    x, mask = inputs(rng, 400)
    full, half = (
        FavorAttention(H, M, kernel=kernel),
        FavorAttention(H, M, kernel=kernel, dtype="mixed_float16"),
    )
    expected = np.asarray(full(x, x, mask))
    half.build((B, 400, D))
    half.set_weights(full.get_weights())
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = half(x, x, mask)
    assert found.dtype == tf.float16
    np.testing.assert_allclose(found, expected, atol=5e-3, rtol=0)  # 11 bits of outputs of order one
    assert np.isfinite(np.asarray(tape.gradient(found, x))).all()


def test_directions_are_saved_and_have_their_own_seed(rng):
    keras.utils.set_random_seed(1)
    one = FavorAttention(H, M, seed=5)
    one.build((B, N, D))
    keras.utils.set_random_seed(2)
    two = FavorAttention(H, M, seed=5)
    two.build((B, N, D))
    other = FavorAttention(H, M, seed=6)
    other.build((B, N, D))
    np.testing.assert_array_equal(one.projection, two.projection)
    assert not np.allclose(one.projection, other.projection)
    assert not np.allclose(one.query.kernel, two.query.kernel)
    assert any(w is one.projection for w in one.non_trainable_weights)


def test_directions_are_redrawn_every_n_training_steps(rng):
    x, mask = inputs(rng)
    layer = FavorAttention(H, M, redraw_interval=3)
    traced = tf.function(lambda: layer(x, x, mask, training=True))
    seen = []
    for _ in range(7):
        traced()
        seen.append(np.array(layer.projection))
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(seen)]
    assert changed == [False, True, False, False, True, False]
    d = D // H
    unit = seen[-1][:d] / np.linalg.norm(seen[-1][:d], axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.eye(d), atol=1e-5)
    layer(x, x, mask)
    np.testing.assert_array_equal(layer.projection, seen[-1])


def test_memory_is_linear_no_pair_of_elements_is_ever_held(rng):
    """No tensor of the traced graph, gradients included, has two axes of N elements."""
    n = 37
    x, mask = inputs(rng, n)
    layer = FavorAttention(H, M)
    layer(x, x, mask)

    @tf.function
    def gradient(x, mask):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, x, mask) ** 2)
        return tape.gradient(loss, x)

    graph = gradient.get_concrete_function(tf.constant(x), tf.constant(mask)).graph
    shapes = [t.shape for op in graph.get_operations() for t in op.outputs if t.shape.rank]
    assert max(list(s).count(n) for s in shapes) == 1


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="kernel='cos', expected one of softmax, elu, relu"):
        FavorAttention(2, 8, kernel="cos")
    with pytest.raises(ValueError, match="width 7 is not a multiple of num_heads=2"):
        FavorAttention(2, 8).build((1, 3, 7))
