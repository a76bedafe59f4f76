"""Event files are read back with TensorBoard's own reader."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from mlpf.training.monitors.tensorboard import TensorBoardWriter


def logged(folder):
    """Tag -> [(step, value)] of every scalar in all files, in order, repeated ones included."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault(value.tag, []).append((event.step, float(make_ndarray(value.tensor))))
    return {tag: sorted(values) for tag, values in found.items()}


def train(folder, epochs, steps_per_epoch=4, stop_at=None, first_step=1):
    """What a training would log: two reports per epoch; ``stop_at`` = step at which the process is killed."""
    writer = TensorBoardWriter(folder, "```yaml\nsetup:\n  lr: 1\n```")
    history = [{"epoch": e, "loss": 10.0 / e} for e in range(1, epochs[0])]
    for epoch in epochs:
        for step in range((epoch - 1) * steps_per_epoch + 2, epoch * steps_per_epoch + 1, 2):
            if step < first_step:
                continue
            if stop_at is not None and step > stop_at:
                return
            writer.on_step(step, {"epoch": epoch, "loss": 100.0 / step, "learning_rate": 0.5})
        history.append({"epoch": epoch, "loss": 10.0 / epoch, "val_loss": 11.0 / epoch})
        writer(history)
    writer.close()


def test_epochs_and_steps_have_axes_of_their_own(tmp_path):
    train(tmp_path, [1, 2])
    assert logged(tmp_path) == {
        "epoch": [(1, 1), (2, 2)],
        "loss": [(1, 10), (2, 5)],
        "val_loss": [(1, 11), (2, 5.5)],
        "step/loss": [(2, 50), (4, 25), (6, pytest.approx(100 / 6)), (8, 12.5)],
        "step/learning_rate": [(2, 0.5), (4, 0.5), (6, 0.5), (8, 0.5)],
    }


def test_the_configuration_is_shown_as_text(tmp_path):
    train(tmp_path, [1])
    (text,) = EventAccumulator(str(tmp_path)).Reload().Tensors("config")
    assert b"lr: 1" in make_ndarray(text.tensor_proto).item()


@pytest.mark.parametrize(
    ("killed", "resume", "first_step"), [(10, [3, 4], 1), (14, [4], 1), (11, [3, 4], 11)]
)
def test_a_resumed_training_logs_every_step_once(tmp_path, killed, resume, first_step):
    """Killed after step ``killed``, continued at the start of an epoch or within one."""
    train(tmp_path / "straight", [1, 2, 3, 4])
    train(tmp_path / "resumed", [1, 2, 3, 4], stop_at=killed)
    train(tmp_path / "resumed", resume, first_step=first_step)
    assert logged(tmp_path / "resumed") == logged(tmp_path / "straight")


def test_a_file_cut_short_by_a_kill_keeps_what_is_whole(tmp_path):
    train(tmp_path, [1, 2, 3])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    train(tmp_path, [3])
    assert logged(tmp_path)["loss"] == [(1, 10), (2, 5), (3, pytest.approx(10 / 3))]


def test_nothing_trained_changes_nothing(tmp_path):
    train(tmp_path, [1])
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    TensorBoardWriter(tmp_path, "x").close()
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
