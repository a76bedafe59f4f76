import numpy as np
import pytest

from mlpf.layers.feedforward import FFN
from tests.support.layer_contract import LayerCase, check_layer, set_values


def test_contract(rng):
    x = rng.normal(size=(2, 3, 4)).astype(np.float32)
    # hidden 4*8+8, 8*4+4; output 4*5+5
    weights = 40 + 36 + 25
    check_layer(
        LayerCase(
            lambda: FFN(5, 8, 2, dropout=0.1, dim_decrease=True), (x,), (2, 3, 5), num_trainable=weights
        )
    )


def test_hand_worked():
    ffn = FFN(1, 2, 1, activation="relu")
    ffn.build((None, None, 2))
    set_values(
        ffn, np.array([[1.0, -1.0], [2.0, 0.0]]), np.array([0.5, 0.0]), np.array([[3.0], [4.0]]), [1.0]
    )
    # hidden = relu([1*1 + 2*2 + 0.5, -1*1 + 0*2]) = [5.5, 0]; output = 3*5.5 + 4*0 + 1 = 17.5
    assert float(ffn(np.array([[[1.0, 2.0]]]))[0, 0, 0]) == 17.5


def test_starts_near_the_output_bias(rng):
    ffn = FFN(2, 64, 1, output_bias=(1.0, 0.0))
    y = np.asarray(ffn(rng.normal(size=(2, 50, 8)).astype(np.float32)))
    # a kernel of width 0.01 over 64 hidden values of order 1: spread about 0.1
    assert np.abs(y - [1.0, 0.0]).max() < 0.6


def test_output_bias_of_another_length_is_refused():
    with pytest.raises(ValueError, match="output_bias has 1 values, expected d_out=2"):
        FFN(2, 8, 1, output_bias=(1.0,))
