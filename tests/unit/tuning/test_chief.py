import json
import stat
import threading

import grpc
import pytest

from mlpf.config.loading import RESOLVED_FILE, write_resolved
from mlpf.errors import ConfigError
from mlpf.tuning import chief as chief_module
from mlpf.tuning.algorithms import build_oracle
from mlpf.tuning.chief import Chief, remove_checkpoints
from mlpf.tuning.client import ChiefClient, ChiefUnreachable
from tests.support.search import search_config, state_of


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def oracle(tmp_path):
    return make(tmp_path)


def make(directory, **section):
    config = search_config(**{"algorithm": "random", "num_trials": 3, **section})
    write_resolved(config, directory / RESOLVED_FILE)
    return build_oracle(directory, config)


def who(worker="w0", launcher="here", process="p"):
    return {"worker": worker, "launcher": launcher, "process": process}


def test_a_silent_worker_loses_its_trial_and_its_late_result_does_not_count(oracle):
    clock = Clock()
    chief = Chief(oracle, 10.0, clock)
    trial = chief.create(**who("a"))["record"]["trial_id"]
    clock.now += 8
    assert chief.beat(**who("a"), trial=trial)["yours"]
    clock.now += 8
    chief.sweep()
    assert chief.beat(**who("a"), trial=trial)["yours"]
    clock.now += 11
    chief.sweep()
    assert not chief.beat(**who("a"), trial=trial)["yours"]
    assert chief.create(**who("b"))["record"]["trial_id"] == trial
    result = {"metrics": {"objective": 1.0}, "best_epoch": 1}
    assert not chief.end(**who("a"), trial=trial, status="COMPLETED", **result)["accepted"]
    assert chief.end(**who("b"), trial=trial, status="COMPLETED", **result)["accepted"]
    assert oracle.records[trial].losses == 1
    assert oracle.end_order == [trial]


def test_after_a_restart_workers_have_a_lease_to_be_heard(tmp_path, oracle):
    Chief(oracle, 10.0).create(**who("a"))
    again = make(tmp_path)
    again.reload()
    clock = Clock()
    chief = Chief(again, 10.0, clock)
    clock.now += 9
    chief.sweep()
    assert chief.beat(**who("a"), trial="0000")["yours"]
    clock.now += 9
    chief.sweep()
    assert chief.beat(**who("a"), trial="0000")["yours"]
    clock.now += 11
    chief.sweep()
    assert again.records["0000"].status == "waiting"


def test_one_name_one_worker(oracle):
    clock = Clock()
    chief = Chief(oracle, 10.0, clock)
    assert chief.hello(**who("n-0", "one", "p"))["accepted"]
    assert not chief.hello(**who("n-0", "two", "q"))["accepted"]
    assert chief.hello(**who("n-0", "one", "r"))["accepted"]  # the same launcher restarted it
    clock.now += 11
    assert chief.hello(**who("n-0", "two", "q"))["accepted"]


def test_over_when_all_who_are_alive_were_told(tmp_path):
    clock, oracle = Clock(), make(tmp_path, num_trials=1)
    chief = Chief(oracle, 10.0, clock)
    chief.create(**who("a"))
    assert chief.create(**who("b"))["trial"]["status"] == "IDLE"
    assert not chief.over
    chief.end(**who("a"), trial="0000", status="FAILED", failure="x", kind="nan")
    assert chief.create(**who("a"))["trial"]["status"] == "STOPPED"
    assert not chief.over
    assert chief.create(**who("b"))["trial"]["status"] == "STOPPED"
    assert chief.over


def test_over_when_the_others_are_silent(tmp_path):
    clock, oracle = Clock(), make(tmp_path, num_trials=1)
    chief = Chief(oracle, 10.0, clock)
    chief.create(**who("a"))
    chief.create(**who("b"))
    chief.end(**who("a"), trial="0000", status="FAILED", failure="x", kind="nan")
    chief.create(**who("a"))
    assert not chief.over
    clock.now += 16
    assert chief.over


def test_seconds_of_a_running_trial_come_with_its_heartbeat(oracle):
    chief = Chief(oracle, 10.0)
    chief.create(**who("a"))
    chief.beat(**who("a"), trial="0000", seconds=12.5)
    assert oracle.records["0000"].seconds == 12.5


def test_a_released_trial_waits(oracle):
    chief = Chief(oracle, 10.0)
    chief.create(**who("a"))
    assert not chief.release(**who("b"), trial="0000")["accepted"]
    assert chief.release(**who("a"), trial="0000")["accepted"]
    assert oracle.records["0000"].status == "waiting"


def test_only_checkpoints_are_removed(tmp_path):
    for name in ("0000", "0001"):
        folder = tmp_path / "runs" / name / "checkpoints" / "epoch_1"
        folder.mkdir(parents=True)
        (folder / "weights").write_text("w")
        (tmp_path / "runs" / name / "history.json").write_text("[]")
    remove_checkpoints(tmp_path, {"0001", "never_started"})
    assert (tmp_path / "runs/0000/checkpoints/epoch_1/weights").is_file()
    assert not (tmp_path / "runs/0001/checkpoints").exists()
    assert (tmp_path / "runs/0001/history.json").is_file()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A chief that listens, in a thread."""
    monkeypatch.setattr(chief_module, "_TICK_S", 0.02)
    write_resolved(search_config(algorithm="random", num_trials=2), tmp_path / RESOLVED_FILE)
    thread = threading.Thread(target=chief_module.run, args=(tmp_path, "127.0.0.1"), daemon=True)
    thread.start()
    client = ChiefClient(tmp_path, **who(), patience=20.0)
    client.call("hello")
    return tmp_path, client, thread


def test_a_search_over_the_network(served):
    directory, client, thread = served
    for number in range(2):
        answer = client.call("create")
        record = answer["record"]
        # JSON keeps all digits of a number; keras-tuner's own messages round to 32 bits.
        assert record["values"]["setup.lr"] == state_of(directory)[record["trial_id"]].values["setup.lr"]
        result = {"metrics": {"objective": 1.5 + number, "val_loss": 2.0}, "best_epoch": 4, "seconds": 1.0}
        assert client.call("end", trial=record["trial_id"], status="COMPLETED", **result)["accepted"]
    assert client.call("create")["trial"]["status"] == "STOPPED"
    thread.join(20)
    assert not thread.is_alive()
    records = state_of(directory)
    assert [r.objective for r in records.values()] == [1.5, 2.5]
    assert records["0000"].metrics == {"val_loss": 2.0}
    assert records["0000"].best_epoch == 4


def test_only_who_can_read_the_token_is_answered(served):
    directory, _, _ = served
    file = directory / "chief.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    chief = json.loads(file.read_text())
    with grpc.insecure_channel(f"127.0.0.1:{chief['port']}") as channel:
        call = channel.unary_unary("/mlpf.Search/hello")
        for metadata in ((), (("token", "wrong"),)):
            with pytest.raises(grpc.RpcError) as error:
                call(json.dumps(who()).encode(), timeout=10, metadata=metadata)
            assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    file.write_text(json.dumps(chief | {"token": "wrong"}))
    other = ChiefClient(directory, **who(), patience=0.5)
    with pytest.raises(ChiefUnreachable, match="has not answered"):
        other.call("hello")


def test_an_address_of_another_machine(tmp_path):
    write_resolved(search_config(), tmp_path / RESOLVED_FILE)
    with pytest.raises(ConfigError, match="cannot listen there"):
        chief_module.run(tmp_path, "192.0.2.1")
