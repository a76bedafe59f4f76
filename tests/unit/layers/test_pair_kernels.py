import numpy as np
import pytest

from mlpf.layers.pair_kernels import NodePairGaussianKernel, PositionKernel
from tests.support.layer_contract import LayerCase, check_layer


def test_contract(rng):
    z = rng.normal(size=(6, 4, 5)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    check_layer(LayerCase(NodePairGaussianKernel, (z, mask), (6, 4, 4), num_trainable=0))


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


def test_lower_bound_holds_for_real_pairs_only():
    z = np.array([[[0.0], [1000.0], [0.0]]])
    kernel = np.asarray(NodePairGaussianKernel(0.1, 0.2)(z, np.array([[True, True, False]])))[0]
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
