import numpy as np
import pytest

from mlpf.layers.pair_kernels import NodePairGaussianKernel, PositionKernel
from tests.support.layer_contract import LayerCase, check_layer


@pytest.mark.parametrize("dist_norm", ["l2", "l1"])
def test_contract(rng, dist_norm):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    check_layer(
        LayerCase(lambda: NodePairGaussianKernel(dist_norm=dist_norm), (z, mask), (6, 4, 4), num_trainable=0)
    )


def test_contract_with_exponents(rng):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    exponent = rng.random((6, 2, 4, 4)).astype(np.float32)
    check_layer(LayerCase(NodePairGaussianKernel, (z, mask, exponent), (6, 2, 4, 4), num_trainable=0))


def test_hand_worked():
    # distances: 0-1 is 5 (3, 4); element 2 is padding
    z = np.array([[[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]])
    kernel = np.asarray(NodePairGaussianKernel(0.1, 0.0)(z, np.array([[True, True, False]])))[0]
    # exp(-0.1 * 5) = 0.606531; on the diagonal the distance is 1e-3: exp(-1e-4) = 0.9999
    assert kernel[:2] == pytest.approx(np.array([[0.9999, 0.606531, 0], [0.606531, 0.9999, 0]]), abs=1e-6)


def test_exponents_multiply_the_kernel_hand_worked():
    z, mask = np.array([[[0.0], [5.0], [1.0]]]), np.array([[True, True, False]])
    exponent = np.array([[np.full((3, 3), 0.5), np.full((3, 3), 2.0)]])
    for low in (0.0, 0.7):
        kernel = np.asarray(NodePairGaussianKernel(0.1, low)(z, mask, exponent))[0]
        # max(exp(-0.5), low) exp(-0.5) and exp(-2)
        expected = max(0.606531, low) * np.array([0.606531, 0.135335])
        assert kernel[:, 0, 1] == pytest.approx(expected, abs=1e-6)
        assert (kernel[..., 2] == 0).all()


def test_l1_hand_worked():
    # |0 - 3| + |0 + 4| = 7, exp(-0.7) = 0.496585; the sum of the differences, as published, would be 1
    z = np.array([[[0.0, 0.0], [3.0, -4.0], [1.0, 1.0]]])
    kernel = NodePairGaussianKernel(0.1, 0.0, dist_norm="l1")
    found = np.asarray(kernel(z, np.array([[True, True, False]])))[0]
    expected = [[0.9999, 0.496585, 0], [0.496585, 0.9999, 0]]
    assert found[:2] == pytest.approx(np.array(expected), abs=1e-6)


def test_an_unknown_norm_is_named():
    with pytest.raises(ValueError, match="dist_norm='l3', expected one of l2, l1"):
        NodePairGaussianKernel(dist_norm="l3")


@pytest.mark.parametrize("dist_norm", ["l2", "l1"])
def test_lower_bound_holds_for_real_pairs_only(dist_norm):
    z = np.array([[[0.0], [1000.0], [0.0]]])
    layer = NodePairGaussianKernel(0.1, 0.2, dist_norm=dist_norm)
    kernel = np.asarray(layer(z, np.array([[True, True, False]])))[0]
    assert kernel[0, 1] == pytest.approx(0.2)
    assert kernel[0, 2] == 0


def test_position_kernel_contract(rng):
    position = rng.normal(size=(6, 4, 3)).astype(np.float32)
    check_layer(LayerCase(lambda: PositionKernel([1.0, 2.0]), (position,), (6, 2, 4, 4), num_trainable=2))


def test_position_kernel_hand_worked():
    # two elements 50 mm apart (30, 40, 0): 50/25 and 50/100
    position = np.array([[[1500.0, 0.0, 0.0], [1530.0, 40.0, 0.0]]])
    exponent = np.asarray(PositionKernel([25.0, 100.0])(position))[0]
    # float32 knows 1500 mm to 1e-4 mm, 4e-6 of the exponent; distances start at 1e-3 mm
    assert exponent[:, 0, 1] == pytest.approx([2.0, 0.5], abs=1e-5)
    assert exponent[:, 0, 0] == pytest.approx([0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("scales", [[], [10.0, 0.0]])
def test_position_kernel_refuses_lengths_that_are_not_positive(scales):
    with pytest.raises(ValueError, match="expected positive lengths in mm"):
        PositionKernel(scales)


def test_exact_diagonal_is_free_of_rounding(rng):
    # float32 squares of 1000 keep 0.1: distances of an element to itself come out up to 0.3, not 0.001
    z = (1000 + rng.normal(size=(1, 64, 16))).astype(np.float32)
    mask = np.ones((1, 64), bool)
    diagonals = {
        exact: np.diagonal(np.asarray(NodePairGaussianKernel(0.1, exact_diagonal=exact)(z, mask))[0])
        for exact in (True, False)
    }
    assert diagonals[True] == pytest.approx(0.9999, abs=1e-6)
    assert diagonals[False].min() < 0.99
    # Differences of equal numbers are exact: the l1 distance needs no such care.
    for exact in (True, False):
        l1 = NodePairGaussianKernel(0.1, exact_diagonal=exact, dist_norm="l1")
        assert np.diagonal(np.asarray(l1(z, mask))[0]) == pytest.approx(0.9999, abs=1e-6)
