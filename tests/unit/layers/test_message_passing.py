import numpy as np
import pytest

from mlpf.layers.message_passing import GHConvDense
from tests.support.layer_contract import LayerCase, check_layer, set_values


@pytest.mark.parametrize("normalize_degrees", [False, True])
def test_contract(rng, normalize_degrees):
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    kernel = (rng.random((6, 4, 4)) * (rng.random((6, 1, 4)) < 0.7)).astype(np.float32)
    # three 5 x 6 matrices and a bias of 6
    check_layer(
        LayerCase(
            lambda: GHConvDense(6, normalize_degrees=normalize_degrees),
            (x, kernel),
            (6, 4, 6),
            num_trainable=96,
        )
    )


def _layer(**kwargs):
    layer = GHConvDense(1, activation="linear", **kwargs)
    layer.build((None, None, 1))
    # w_t = 0, b_t = 0: the gate is 1/2; W_h = 2; theta = 3
    set_values(layer, [[0.0]], [0.0], [[2.0]], [[3.0]])
    return layer


# The third element is seen by nobody.
X = np.array([[[1.0], [2.0], [9.0]]])
KERNEL = np.array([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.5, 0.5, 0.0]]])


def test_hand_worked():
    # hom = A (3 x) = [3 + 0.5*6, 0.5*3 + 6] = [6, 7.5]; het = [2, 4]; out = mean of both
    out = np.asarray(_layer()(X, KERNEL)).ravel()
    assert out[:2] == pytest.approx([4.0, 5.75], abs=1e-6)


def test_hand_worked_with_normalised_degrees():
    # degrees 1.5 each: s A s = A / 1.5, so hom = [4, 5]
    out = np.asarray(_layer(normalize_degrees=True)(X, KERNEL)).ravel()
    assert out[:2] == pytest.approx([3.0, 4.5], abs=1e-5)


def test_each_head_sums_its_own_slice_hand_worked():
    layer = GHConvDense(2, activation="linear")
    layer.build((None, None, 1))
    # the gate is 1/2, het = 0, theta maps x to the slices (x, 10 x)
    set_values(layer, [[0.0, 0.0]], [0.0, 0.0], [[0.0, 0.0]], [[1.0, 10.0]])
    near = [[1.0, 0.0], [0.0, 1.0]]
    far = [[1.0, 0.5], [0.5, 1.0]]
    x = np.array([[[1.0], [2.0]]])
    out = np.asarray(layer(x, np.array([[near, far]])))[0]
    # head 0: [1, 2] / 2; head 1: [10 + 10, 5 + 20] / 2
    assert out == pytest.approx(np.array([[0.5, 10.0], [1.0, 12.5]]), abs=1e-6)


def test_contract_with_heads(rng):
    x = rng.normal(size=(6, 4, 5)).astype(np.float32)
    kernel = (rng.random((6, 2, 4, 4)) * (rng.random((6, 1, 1, 4)) < 0.7)).astype(np.float32)
    case = LayerCase(
        lambda: GHConvDense(6, normalize_degrees=True),
        (x, kernel),
        (6, 4, 6),
        num_trainable=96,
        open_axes=1,
    )
    check_layer(case)


@pytest.mark.parametrize("value", [10.0, 60.0, 1000.0])
def test_sums_beyond_the_range_of_float16_are_right(value):
    """256 neighbours of this value sum to more than 65504; the gate 1 / (1 + e^2) = 0.119 brings it back."""
    layer = GHConvDense(1, dtype="mixed_float16", activation="linear")
    layer.build((1, 256, 1))
    set_values(layer, [[0.0]], [-2.0], [[0.0]], [[value]])
    ones = np.ones((1, 256, 1), np.float32)
    out = np.asarray(layer(ones, np.ones((1, 256, 256), np.float32)))
    expected = 256 * value / (1 + np.exp(2.0))
    np.testing.assert_allclose(out[..., 0], expected, rtol=2e-3)  # 11 bits


@pytest.mark.parametrize("normalize_degrees", [False, True])
def test_inputs_at_the_end_of_float16_give_finite_outputs(rng, normalize_degrees):
    layer = GHConvDense(64, dtype="mixed_float16", normalize_degrees=normalize_degrees)
    x = (65504.0 * rng.choice([-1.0, 1.0], (1, 256, 64))).astype(np.float32)
    kernel = rng.random((1, 256, 256)).astype(np.float32)
    assert np.isfinite(np.asarray(layer(x, kernel, np.ones((1, 256), bool)))).all()


def test_padding_with_large_features_does_not_spoil_degrees_in_float16():
    layer = GHConvDense(1, dtype="mixed_float16", normalize_degrees=True)
    layer.build((1, 3, 1))
    set_values(layer, [[0.0]], [0.0], [[2.0]], [[3.0]])
    kernel = np.array([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [1e-6, 1e-6, 0.0]]], np.float32)
    mask = np.array([[True, True, False]])
    found = [
        np.asarray(layer(np.array([[[1.0], [2.0], [far]]], np.float32), kernel, mask)) for far in (1.0, 6e4)
    ]
    np.testing.assert_array_equal(found[0][:, :2], found[1][:, :2])
    assert np.isfinite(found[1][:, :2]).all()
