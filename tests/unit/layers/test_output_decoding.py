import numpy as np
import pytest

from mlpf.layers.output_decoding import HEADS, OutputDecoding
from tests.support.events import clic_like_events
from tests.support.layer_contract import LayerCase, check_layer

WIDTHS = {"cls": 6, "charge": 3, "pt": 1, "eta": 1, "sin_phi": 1, "cos_phi": 1, "energy": 1}


def make(**kwargs):
    settings = {f"{head}_hidden_dim": 8 for head in HEADS}
    return OutputDecoding(6, **{**settings, **kwargs})


def inputs(rng, n=20, width=5):
    x = clic_like_events(2, n)
    h_id, h_reg = rng.normal(size=(2, 2, n, width)).astype(np.float32)
    return x, h_id, h_reg, x[..., 0] != 0


# pt as a correction: otherwise one of its two outputs is unused and has no gradient.
@pytest.mark.parametrize(
    ("pt_as_correction", "num_pt", "energy_as_correction", "num_energy"),
    [(True, 2, "additive", 1), (True, 2, "linear", 2), ("exponential", 1, "exponential", 1)],
)
def test_contract(rng, pt_as_correction, num_pt, energy_as_correction, num_energy):
    # LayerNorm 10; hidden layers: id, charge 5 -> 8; eta, phi 11 -> 8; pt, energy 22 -> 8;
    # outputs 6, 3, 1, 2 and those of pt and energy, from 8 and a bias
    trainable = 10 + 2 * 48 + 2 * 96 + 2 * 184 + 9 * (6 + 3 + 1 + 2 + num_pt + num_energy)
    shapes = {name: (2, 20, width) for name, width in WIDTHS.items()}
    modes = {"pt_as_correction": pt_as_correction, "energy_as_correction": energy_as_correction}
    check_layer(LayerCase(lambda: make(**modes, dropout=0.1), inputs(rng), shapes, num_trainable=trainable))


def with_constant_heads(**kwargs):
    """Heads whose kernels are zero: their outputs are their biases."""
    layer = make(layernorm=False, **kwargs)
    layer.build((None, None, 17), (None, None, 5), (None, None, 5))
    for weight in layer.weights:
        weight.assign(np.zeros(weight.shape))
    return layer


def test_hand_worked(rng):
    layer = with_constant_heads()
    layer.ffn_pt.out.bias.assign([-3.0, 100.0])
    layer.ffn_eta.out.bias.assign([9.0])
    layer.ffn_phi.out.bias.assign([0.25, -5.0])
    layer.ffn_energy.out.bias.assign([-12.0])
    layer.ffn_id.out.bias.assign([0, 1, 2, 3, 4, 5])
    x = np.zeros((1, 2, 17), np.float32)
    x[0, 0, :6] = [2, 8.0, 1.0, 0.5, 0.5, 10.0]
    h = np.ones((1, 2, 5), np.float32)
    out = {k: np.asarray(v)[0] for k, v in layer(x, h, h, x[..., 0] != 0).items()}
    assert out["cls"].tolist() == [[0, 1, 2, 3, 4, 5], [0] * 6]
    assert out["pt"].tolist() == [[3.0], [0.0]]  # |a|, b unused
    assert out["eta"].tolist() == [[7.0], [0.0]]  # 1 + 9 clipped to 7
    assert out["sin_phi"].tolist() == [[0.75], [0.0]]
    assert out["cos_phi"].tolist() == [[-1.0], [0.0]]  # 0.5 - 5 clipped to -1
    assert out["energy"].tolist() == [[2.0], [0.0]]  # |10 - 12|


def test_linear_corrections_hand_worked():
    layer = with_constant_heads(pt_as_correction=True, energy_as_correction="linear")
    layer.ffn_pt.out.bias.assign([0.5, 1.0])
    layer.ffn_energy.out.bias.assign([2.0, -30.0])
    x = np.zeros((1, 1, 17), np.float32)
    x[0, 0, :6] = [1, 8.0, 1.0, 0.5, 0.5, 10.0]
    h = np.ones((1, 1, 5), np.float32)
    out = layer(x, h, h, x[..., 0] != 0)
    assert float(out["pt"][0, 0, 0]) == 5.0  # 0.5 * 8 + 1
    assert float(out["energy"][0, 0, 0]) == 10.0  # |2 * 10 - 30|


def test_linear_corrections_start_at_the_input(rng):
    layer = make(pt_as_correction=True, energy_as_correction="linear", id_hidden_dim=64)
    x, h_id, h_reg, mask = inputs(rng)
    out = layer(x, h_id, h_reg, mask)
    for name, column in (("pt", 1), ("energy", 5)):
        # output kernels of width 0.01 over 8 hidden values: a few per cent, and the same in GeV
        assert np.asarray(out[name])[..., 0] == pytest.approx(x[..., column] * mask, rel=0.3, abs=0.3)


def test_nan_and_inf_become_zero(rng):
    x, h_id, h_reg, mask = inputs(rng)
    h_reg[0, 0] = np.nan
    x[1, 1, 5] = np.inf
    out = make()(x, h_id, h_reg, mask)
    assert np.asarray(out["pt"])[0, 0, 0] == 0
    assert np.asarray(out["energy"])[1, 1, 0] == 0


def test_exponential_corrections_hand_worked():
    layer = with_constant_heads(pt_as_correction="exponential", energy_as_correction="exponential")
    layer.ffn_pt.out.bias.assign([np.log(0.5)])
    layer.ffn_energy.out.bias.assign([50.0])
    x = np.zeros((1, 3, 17), np.float32)
    x[0, :2, :6] = [[1, 8.0, 1.0, 0.5, 0.5, 10.0], [2, -2.0, 1.0, 0.5, 0.5, 0.0]]
    h = np.ones((1, 3, 5), np.float32)
    out = layer(x, h, h, x[..., 0] != 0)
    # Half of 8 GeV; half of 1 MeV, since a measured pt below counts as that; padding.
    assert np.asarray(out["pt"])[0, :, 0] == pytest.approx([4.0, 5e-4, 0.0], rel=1e-6)
    # The factor ends at e^10.
    assert np.asarray(out["energy"])[0, :, 0] == pytest.approx(
        [10 * np.e**10, 1e-3 * np.e**10, 0.0], rel=1e-5
    )


def test_exponential_corrections_start_at_the_input_and_are_positive(rng):
    layer = make(pt_as_correction="exponential", energy_as_correction="exponential")
    x, h_id, h_reg, mask = inputs(rng)
    out = layer(x, h_id, h_reg, mask)
    for name, column in (("pt", 1), ("energy", 5)):
        values = np.asarray(out[name])[..., 0]
        assert (values[mask] > 0).all()
        assert values[mask] == pytest.approx(x[..., column][mask], rel=0.3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"energy_as_correction": "square"},
            "energy_as_correction='square', expected one of additive, linear, exponential",
        ),
        ({"pt_as_correction": "linear"}, "pt_as_correction='linear', expected True, False or exponential"),
    ],
)
def test_unknown_corrections_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        make(**setting)
