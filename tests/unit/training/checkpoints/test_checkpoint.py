import keras
import numpy as np
import pytest
from keras import ops

from mlpf.errors import CheckpointError
from mlpf.training.checkpoints.checkpoint import (
    load_optimizer,
    load_random_states,
    load_training_weights,
    load_weights,
    read_run_state,
    save_checkpoint,
)
from mlpf.training.checkpoints.run_state import EpochProgress, RunState
from mlpf.training.optimizers.accumulation import Accumulated
from tests.support.tiny_model import tiny_model


def built(seed=0, optimizer=None):
    model = tiny_model(seed)
    optimizer = optimizer or keras.optimizers.Adam(1e-2)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def step(model, optimizer):
    optimizer.apply([ops.ones(v.shape) for v in model.trainable_variables])


def state(*values):
    """After epochs with these validation losses."""
    return RunState([{"epoch": i + 1, "val_loss": value} for i, value in enumerate(values)])


def test_weights_and_optimizer_come_back(tmp_path):
    model, optimizer = built(seed=0)
    step(model, optimizer)
    save_checkpoint(tmp_path / "epoch_1", model, optimizer, state(1.0))
    other, other_optimizer = built(seed=1)

    load_weights(tmp_path / "epoch_1", other)
    load_optimizer(tmp_path / "epoch_1", other_optimizer)
    step(model, optimizer)
    step(other, other_optimizer)

    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_run_state(tmp_path / "epoch_1") == state(1.0)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch_1"]


def test_a_checkpoint_of_another_model_names_the_first_weight(tmp_path):
    save_checkpoint(tmp_path / "epoch_1", *built(), state(1.0))
    other = keras.Sequential([keras.Input((17,)), keras.layers.Dense(3, name="head")])

    with pytest.raises(CheckpointError, match=r"another model: weight 0 is .*expected head/kernel \(17, 3\)"):
        load_weights(tmp_path / "epoch_1", other)


def test_damaged_files_are_reported(tmp_path):
    model, optimizer = built()
    save_checkpoint(tmp_path / "epoch_1", model, optimizer, state(1.0))
    (tmp_path / "epoch_1" / "model.weights.h5").write_bytes(b"no")
    (tmp_path / "epoch_1" / "optimizer.npz").write_bytes(b"no")

    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(tmp_path / "epoch_1", model)
    with pytest.raises(CheckpointError, match="damaged"):
        load_optimizer(tmp_path / "epoch_1", optimizer)


def test_state_of_another_optimizer_is_refused(tmp_path):
    save_checkpoint(tmp_path / "epoch_1", *built(), state(1.0))
    _, sgd = built(optimizer=keras.optimizers.SGD(0.1))

    with pytest.raises(CheckpointError, match=r"Adam, but section setup asks for SGD"):
        load_optimizer(tmp_path / "epoch_1", sgd)


def cosine(peak):
    return keras.optimizers.schedules.CosineDecay(peak, 10)


@pytest.mark.parametrize("before", [1e-2, cosine(1e-2)])
@pytest.mark.parametrize(
    ("now", "rate"), [(1e-3, 1e-3), (cosine(1e-3), 1e-3 * (1 + np.cos(0.1 * np.pi)) / 2)]
)
@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: Accumulated(inner, 1)])
def test_the_learning_rate_is_that_of_the_configuration(tmp_path, before, now, rate, wrap):
    """A constant rate is a variable of Keras, and would come back with the state."""
    model, optimizer = built(optimizer=wrap(keras.optimizers.Adam(before)))
    step(model, optimizer)
    save_checkpoint(tmp_path / "epoch_1", model, optimizer, state(1.0))
    _, other = built(optimizer=wrap(keras.optimizers.Adam(now)))
    load_optimizer(tmp_path / "epoch_1", other)
    assert int(other.iterations) == 1
    assert float(other.learning_rate) == pytest.approx(rate, rel=1e-6)  # float32


def test_a_constant_rate_in_an_older_checkpoint_is_left_there(tmp_path):
    model, optimizer = built()
    step(model, optimizer)
    save_checkpoint(tmp_path / "epoch_1", model, optimizer, state(1.0))
    arrays = {f"{i:05d}": ops.convert_to_numpy(v) for i, v in enumerate(optimizer.variables)}
    assert arrays["00001"] == np.float32(1e-2)
    np.savez(tmp_path / "epoch_1" / "optimizer.npz", **arrays)
    for rate in (1e-3, cosine(1e-3)):
        _, other = built(optimizer=keras.optimizers.Adam(rate))
        load_optimizer(tmp_path / "epoch_1", other)
        assert float(other.learning_rate) < 2e-3
        for a, b in zip(
            optimizer.variables[2:], other.variables[-len(optimizer.variables) + 2 :], strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_the_middle_of_an_epoch_comes_back(tmp_path):
    middle = state(2.0, 1.0)
    middle.current = EpochProgress(7, [[0.1, 1e300], [3.0, 4.0]], 12.5, 0.25, 0.0, 1e-3, 40)
    middle.fingerprint = "abc"
    random_states = np.arange(12).reshape(2, 3, 2) + 2**40
    save_checkpoint(tmp_path / "x", *built(), middle, random_states, "setup: {seed: 3}\n")

    assert read_run_state(tmp_path / "x") == middle
    np.testing.assert_array_equal(load_random_states(tmp_path / "x"), random_states)
    assert (tmp_path / "x" / "config.resolved.yaml").read_text(encoding="utf-8") == "setup: {seed: 3}\n"


def test_no_file_of_a_checkpoint_needs_a_pickle(tmp_path):
    save_checkpoint(tmp_path / "x", *built(), state(1.0))

    assert {p.name for p in (tmp_path / "x").iterdir()} == {
        "config.resolved.yaml",
        "model.weights.h5",
        "optimizer.npz",
        "random.npz",
        "state.json",
    }
    for file in (tmp_path / "x").glob("*.npz"):
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype != object for name in arrays)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "run is 'None', expected dict"),
        ('{"run": []}', r"run is '\[\]', expected dict"),
        ('{"run": {}}', "history is 'None', expected list"),
        (
            '{"run": {"history": [1], "current": {}, "fingerprint": ""}}',
            "history, expected a list of mappings",
        ),
        (
            '{"run": {"history": [], "current": {"step": true}, "fingerprint": ""}}',
            "step is 'True', expected int",
        ),
        ("{", "missing or damaged"),
    ],
)
def test_a_malformed_state_is_refused(tmp_path, text, reason):
    (tmp_path / "state.json").write_text(text, encoding="utf-8")

    with pytest.raises(CheckpointError, match=reason):
        read_run_state(tmp_path)


@pytest.mark.parametrize("content", [b"no", b""])
def test_damaged_random_states_are_refused(tmp_path, content):
    (tmp_path / "random.npz").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"random\.npz: missing or damaged"):
        load_random_states(tmp_path)


def test_a_missing_checkpoint_says_where_it_was_sought(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(tmp_path / "x.weights.h5", built()[0])


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path / "epoch_1", *built(), state(1.0))

    assert list(tmp_path.iterdir()) == []


def test_averages_are_what_is_used_and_the_weights_are_what_is_trained(tmp_path):
    model, optimizer = built(optimizer=keras.optimizers.Adam(1e-1, use_ema=True, ema_momentum=0.5))
    for _ in range(3):
        step(model, optimizer)
    trained = model.get_weights()
    save_checkpoint(tmp_path / "x", model, optimizer, state(1.0))
    for a, b in zip(model.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(a, b)
    used, resumed = tiny_model(1), tiny_model(2)

    load_weights(tmp_path / "x", used)
    load_training_weights(tmp_path / "x", resumed)

    # Equal gradients move Adam by -0.1 a step, so w1, w2, w3 are w3 + 0.2, w3 + 0.1, w3, and their average
    # w1 / 4 + w2 / 4 + w3 / 2 is w3 + 0.075.
    for a, b, c in zip(used.get_weights(), resumed.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(b, c)
        np.testing.assert_allclose(a - c, 0.075, rtol=0, atol=1e-5)
