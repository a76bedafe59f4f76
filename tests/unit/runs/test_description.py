"""What is written to repeat a run, and what stays of it when a run cannot go on."""

import json
import re

import pytest

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.files.run_directory import RunDirectory
from mlpf.runs.changes import recorded_limits
from mlpf.runs.description import kept_description, write_description
from mlpf.training.loop.interruption import TrainingStopped
from tests.support.configs import SMALL

LIMITS = {"ntrain": 7, "ntest": None}


@pytest.fixture
def config():
    return Config.model_validate(SMALL)


def change_and_fail(run_dir, config, begun, error):
    """Describe a run anew, then fail."""
    with kept_description(run_dir, lambda: begun):
        write_description(config, run_dir, {"ntrain": 8, "ntest": None})
        raise error


def test_a_resumed_run_remembers_its_limits(tmp_path, config):
    write_description(config, tmp_path, LIMITS)
    assert load_config(tmp_path / "config.resolved.yaml") == config
    assert recorded_limits(tmp_path) == LIMITS
    RunDirectory(tmp_path).environment.write_text("{", encoding="utf-8")
    assert recorded_limits(tmp_path) == {}


def test_each_start_is_recorded_with_its_command(tmp_path, config, monkeypatch):
    for words in (["-c", "a b.yaml"], ["--resume", "run"]):
        monkeypatch.setattr("sys.argv", ["/bin/mlpf", "train", *words])
        write_description(config, tmp_path, LIMITS)
    starts = json.loads(RunDirectory(tmp_path).environment.read_text(encoding="utf-8"))["starts"]
    assert [start["command"] for start in starts] == ["mlpf train -c 'a b.yaml'", "mlpf train --resume run"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", start["time"]) for start in starts)


@pytest.mark.parametrize(
    ("error", "begun", "is_kept"),
    [
        (MemoryError, False, True),
        (KeyboardInterrupt, False, True),
        (MemoryError, True, False),
        (TrainingStopped, False, False),
        (TrainingStopped, True, False),
    ],
)
def test_the_description_of_before_comes_back_unless_a_step_was_made(tmp_path, config, error, begun, is_kept):
    write_description(config, tmp_path, LIMITS)
    changed = config.with_overrides({"setup.lr": 0.5})
    with pytest.raises(error):
        change_and_fail(tmp_path, changed, begun, error)
    expected = (config, 7) if is_kept else (changed, 8)
    assert (load_config(tmp_path / "config.resolved.yaml"), recorded_limits(tmp_path)["ntrain"]) == expected
    assert {p.name for p in tmp_path.iterdir()} == {"config.resolved.yaml", "environment.json"}


def test_a_new_run_has_nothing_to_put_back(tmp_path, config):
    with pytest.raises(MemoryError):
        change_and_fail(tmp_path, config, False, MemoryError)
    assert load_config(tmp_path / "config.resolved.yaml") == config
