import numpy as np
import pytest

from mlpf.layers.input_normalization import InputNormalization, fit_normalization
from tests.support.events import clic_like_events
from tests.support.layer_contract import LayerCase, check_layer


def adapted():
    layer = InputNormalization(3)
    layer.build((None, None, 17))
    layer.set_statistics(fit_normalization([clic_like_events(4, 50, seed=3)]))
    return layer


def test_contract():
    x = clic_like_events(2, 20)
    # three constants for 3 x 16 columns and the flag
    check_layer(LayerCase(lambda: InputNormalization(3), (x,), (2, 20, 17), num_trainable=0, num_frozen=145))


def test_identity_before_it_is_adapted_except_nan_and_inf():
    x = np.array([[[1.0, np.nan, np.inf, -5e7]]], dtype=np.float32)
    assert np.asarray(InputNormalization(3)(x))[0, 0].tolist() == [1.0, 0.0, 0.0, -5e7]


def test_hand_worked():
    e = np.e
    layer = InputNormalization(3)
    layer.build((None, None, 2))
    constants = {"scale": [[1], [2], [1]], "mean": [[0], [0.5], [0]], "std": [[1], [0.5], [1]]}
    layer.set_statistics({k: np.array(v, dtype=np.float32) for k, v in constants.items()})
    # type 1: symlog(2 (e - 1) / 2) = 1, (1 - 0.5) / 0.5 = 1; type 2: symlog(-(e^2 - 1)) = -2; clip at 10
    x = np.array([[[1, 2 * (e - 1)], [2, 1 - e**2], [2, 1e30]]], dtype=np.float32)
    assert np.asarray(layer(x))[0] == pytest.approx(np.array([[1, 1], [2, -2], [2, 10]]), abs=1e-5)


def test_fitted_elements_have_mean_zero_and_width_one():
    x = clic_like_events(20, 100, seed=5)
    layer = InputNormalization(3)
    layer.build((None, None, 17))
    layer.set_statistics(fit_normalization([x]))
    y = np.asarray(layer(x))
    for kind in (1, 2):
        rows = y[x[..., 0] == kind, 1:]
        # clipping and float32
        assert np.abs(rows.mean(axis=0)).max() < 0.02
        widths = rows.std(axis=0)
        varies = x[x[..., 0] == kind, 1:].std(axis=0) > 0
        assert widths[varies] == pytest.approx(1.0, abs=0.05)


def test_batches_give_the_constants_of_the_whole():
    x = clic_like_events(10, 60, seed=6)
    whole = fit_normalization([x])
    parts = fit_normalization([x[:4], x[4:7], x[7:]])
    for name, values in whole.items():
        assert parts[name] == pytest.approx(values, abs=1e-5)


def test_streaming_after_the_sample_gives_mean_and_width_of_all():
    rows = np.random.default_rng(0).normal(3.0, 2.0, (1000, 1))
    x = np.concatenate([np.ones_like(rows), rows], axis=1)
    constants = fit_normalization(np.split(x, 10), sample_rows=100)
    scale = np.median(np.abs(rows[:100]))
    y = np.sign(rows) * np.log1p(np.abs(rows / scale))
    assert constants["scale"][1, 0] == pytest.approx(scale, rel=1e-6)
    assert constants["mean"][1, 0] == pytest.approx(y.mean(), abs=1e-6)
    assert constants["std"][1, 0] == pytest.approx(y.std(), abs=1e-6)


def test_constant_columns_and_absent_types_are_left_alone():
    constants = fit_normalization([np.array([[1.0, 5.0, np.nan], [1.0, 5.0, np.inf], [0.0, 9.0, 9.0]])])
    assert constants["std"].tolist() == [[1, 1]] * 3
    assert constants["scale"].tolist() == [[1, 1], [5, 1], [1, 1]]


def test_only_padding_is_refused():
    with pytest.raises(ValueError, match="no real element"):
        fit_normalization([np.zeros((2, 3, 17))])


def test_constants_of_another_shape_are_refused():
    layer = adapted()
    with pytest.raises(ValueError, match=r"'mean' has shape nothing, expected \(3, 16\)"):
        layer.set_statistics({"scale": np.ones((3, 16))})
