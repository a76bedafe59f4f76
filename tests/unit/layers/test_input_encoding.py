import numpy as np
import pytest

from mlpf.layers.helix_encoding import NUM_HELIX_FEATURES
from mlpf.layers.input_encoding import InputEncoding
from tests.support.events import clic_like_events
from tests.support.layer_contract import LayerCase, check_layer


@pytest.mark.parametrize(("encoding", "width"), [("clic", 19), ("clic_helix", 19 + NUM_HELIX_FEATURES)])
def test_contract(encoding, width):
    x = clic_like_events(2, 20)
    case = LayerCase(
        lambda: InputEncoding(3, encoding, 1500.0, 2307.0),
        (x, x),
        (2, 20, width),
        num_trainable=0,
        tolerance=1e-4,
    )
    check_layer(case)


def test_hand_worked():
    x = np.array([[[1.0, 7.0, -3.0], [2.0, 0.5, 4.0], [0.0, 0.0, 0.0]]], dtype=np.float32)
    expected = [[0, 1, 0, 7, -3], [0, 0, 1, 0.5, 4], [1, 0, 0, 0, 0]]
    assert np.asarray(InputEncoding(3)(x, x))[0].tolist() == expected


def test_unknown_encoding_is_refused():
    with pytest.raises(ValueError, match="input_encoding='cms', expected one of clic, clic_helix"):
        InputEncoding(3, "cms")


def test_positions_need_a_face():
    with pytest.raises(ValueError, match="clic_helix' needs radius and half length of the calorimeter"):
        InputEncoding(3, "clic_helix")
