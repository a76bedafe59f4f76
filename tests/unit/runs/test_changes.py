"""What a run that goes on has changed, and how a checkpoint that does not fit is explained."""

import json

import pytest

from mlpf.config.loading import write_resolved
from mlpf.config.schema import Config
from mlpf.errors import CheckpointError
from mlpf.files.run_directory import RunDirectory
from mlpf.runs.changes import BATCHES, NETWORK, Changes, find_changes, recorded_limits
from mlpf.runs.description import write_description
from tests.support.configs import SMALL

LIMITS = {"ntrain": None, "ntest": None}


@pytest.fixture
def config():
    return Config.model_validate(SMALL)


@pytest.fixture
def checkpoint(tmp_path, config):
    """That of a run which began with ``config``."""
    folder = tmp_path / "run" / "checkpoints" / "epoch_3"
    folder.mkdir(parents=True)
    write_resolved(config, folder / "config.resolved.yaml")
    write_description(config, tmp_path / "run", LIMITS)
    return folder


def found(checkpoint, config, limits=None):
    run_dir = checkpoint.parent.parent
    return find_changes(run_dir, checkpoint, config, limits or LIMITS, lambda key: f"at {key}")


def test_an_unchanged_run_has_no_changes(config, checkpoint):
    changes = found(checkpoint, config)
    assert (changes.keys, changes.lines(), changes.record()) == ({}, [], {})


def test_keys_and_limits_are_told_with_the_checkpoint(config, checkpoint):
    changes = found(checkpoint, config.with_overrides({"setup.lr": 1e-4}), {"ntrain": 9, "ntest": None})
    assert changes.lines() == [
        "changed after epoch_3: setup.lr: 0.001 -> 0.0001",
        "changed after epoch_3: --ntrain: all -> 9",
    ]


def test_the_checkpoint_counts_and_not_the_file_beside_it(config, checkpoint):
    """Somebody may have edited the latter."""
    edited = config.with_overrides({"setup.lr": 1e-4})
    write_resolved(edited, checkpoint.parent.parent / "config.resolved.yaml")
    assert found(checkpoint, edited).keys == {"setup.lr": "0.001 -> 0.0001"}


def test_a_checkpoint_without_configuration_is_compared_with_the_run(config, checkpoint):
    (checkpoint / "config.resolved.yaml").write_text("", encoding="utf-8")
    assert found(checkpoint, config.with_overrides({"setup.seed": 2})).keys == {"setup.seed": "1 -> 2"}
    (checkpoint.parent.parent / "config.resolved.yaml").unlink()
    assert found(checkpoint, config.with_overrides({"setup.seed": 2})).keys == {}


def test_changes_of_earlier_resumes_stay(config, checkpoint):
    run_dir = checkpoint.parent.parent
    earlier = {"epoch_1": ["setup.lr: 0.1 -> 0.001"], "epoch_3": ["setup.lr: 0.001 -> 7.0"]}
    write_description(config, run_dir, LIMITS, earlier)
    changes = found(checkpoint, config.with_overrides({"setup.seed": 2}))
    # What was changed after the same checkpoint was never trained with.
    assert changes.record() == {"epoch_1": ["setup.lr: 0.1 -> 0.001"], "epoch_3": ["setup.seed: 1 -> 2"]}
    write_description(config, run_dir, LIMITS, changes.record())
    stored = json.loads(RunDirectory(run_dir).environment.read_text(encoding="utf-8"))
    assert stored["changes"] == changes.record()


@pytest.mark.parametrize("text", ["{", "[]", '{"limits": 3, "changes": []}'])
def test_a_damaged_record_of_a_run_is_as_none(config, checkpoint, text):
    RunDirectory(checkpoint.parent.parent).environment.write_text(text, encoding="utf-8")
    assert found(checkpoint, config).record() == {}
    assert recorded_limits(checkpoint.parent.parent) == {}


def test_a_refusal_names_the_first_change_that_can_be_the_reason(config, checkpoint):
    wider = config.with_overrides(
        {"setup.lr": 1e-4, "parameters.node_encoding_hidden_dim": 9, "parameters.num_graph_layers_id": 2}
    )
    changes = found(checkpoint, wider)
    with pytest.raises(CheckpointError) as caught, changes.explained(NETWORK):
        raise CheckpointError("weight 3 does not fit")
    first, may = str(caught.value).splitlines()
    assert first == (
        "at parameters.node_encoding_hidden_dim  parameters.node_encoding_hidden_dim: 256 -> 9 "
        "(changed too: parameters.num_graph_layers_id); weight 3 does not fit"
    )
    assert may.startswith("with --resume may change:")


def test_an_option_is_its_own_place(config, checkpoint):
    changes = found(checkpoint, config, {"ntrain": 9, "ntest": None})
    with (
        pytest.raises(CheckpointError, match=r"^--ntrain: all -> 9; other batches"),
        changes.explained(BATCHES),
    ):
        raise CheckpointError("other batches")


def test_an_error_that_no_change_explains_stays_as_it_is(config, checkpoint):
    changes = found(checkpoint, config.with_overrides({"setup.lr": 1e-4}))
    with pytest.raises(CheckpointError, match=r"^damaged$"), changes.explained(NETWORK):
        raise CheckpointError("damaged")
    with Changes(checkpoint).explained(NETWORK):
        pass
