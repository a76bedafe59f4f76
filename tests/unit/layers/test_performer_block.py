import numpy as np
import pytest
import tensorflow as tf

from mlpf.layers.performer_block import PerformerBlock
from tests.support.layer_contract import LayerCase, check_layer, check_padding_invariance
from tests.support.number_formats import skip_if_it_aborts

B, N, D, H, M, F = 2, 6, 8, 2, 16, 12
ATTENTION, FFN, NORMS = 4 * D * D, D * F + F + F * D + D, 2 * D


def make(**options):
    return PerformerBlock(H, M, F, **options)


def inputs(rng, n=N):
    return rng.normal(size=(B, n, D)).astype(np.float32), np.arange(n) < np.array([[n], [n - 2]])


def test_contract(rng):
    h, mask = inputs(rng)
    check_layer(
        LayerCase(
            make=lambda: make(dropout=0.2),
            inputs=(h, h, mask),
            output_shape=(B, N, D),
            num_trainable=ATTENTION + FFN + NORMS,
            num_frozen=M * D // H,
        )
    )


def test_both_updates_are_residual(rng):
    """With zero output weights the block is the identity; with one of them it is not."""
    h, mask = inputs(rng)
    block = make()
    block(h, None, mask)
    zero = [block.attention.out.kernel, block.out.kernel, block.out.bias]
    for weight in zero:
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(block(h, None, mask), h)
    block.out.bias.assign(np.ones(D))
    np.testing.assert_allclose(block(h, None, mask), h + 1, atol=1e-6)


def test_hand_worked_feed_forward_part(rng):
    """Attention off, one element: norm, Dense, relu, Dense by hand."""
    block = PerformerBlock(1, 2, 2, activation="relu")
    block.build((1, 1, 2))
    block.attention.out.kernel.assign(np.zeros((2, 2)))
    block.hidden.kernel.assign([[1.0, -1.0], [0.0, 0.0]])
    block.out.kernel.assign([[2.0, 0.0], [0.0, 5.0]])
    # root mean square 5: normalised to (1.4, 0.2); relu(1.4, -1.4) = (1.4, 0); (7 + 2.8, 1)
    out = block(np.array([[[7.0, 1.0]]], np.float32), None, np.ones((1, 1), bool))
    np.testing.assert_allclose(out, [[[9.8, 1.0]]], atol=1e-5)


def test_keys_default_to_the_stream_itself(rng):
    h, mask = inputs(rng)
    block = make()
    np.testing.assert_array_equal(block(h, None, mask), block(h, h, mask))
    assert not np.allclose(block(h, None, mask), block(h, 2.0 * h + 1.0 * (h > 0), mask))


def test_padding_at_the_end_changes_nothing(rng):
    h, mask = inputs(rng)
    longer = np.concatenate([h, rng.normal(size=(B, 4, D)).astype(np.float32)], axis=1)
    longer_mask = np.concatenate([mask, np.zeros((B, 4), bool)], axis=1)
    check_padding_invariance(make(), (h, h, mask), (longer, longer, longer_mask), N, 1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_residual_stream_stays_float32(rng, policy):
    skip_if_it_aborts(policy)
    h, mask = inputs(rng)
    block = make(dtype=policy)
    out = block(h + 1000, None, mask)
    assert out.dtype == tf.float32
    assert block.attention.compute_dtype in policy
    # A residual in 16 bits would round 1000.1 to a multiple of 0.5 or 4.
    assert np.abs(np.asarray(out) % 0.5).max() > 0


def test_dropout_acts_in_training_only(rng):
    h, mask = inputs(rng)
    block = make(dropout=0.5)
    np.testing.assert_array_equal(block(h, None, mask), block(h, None, mask))
    assert not np.allclose(block(h, None, mask, training=True), block(h, None, mask))
