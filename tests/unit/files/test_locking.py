import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from mlpf.errors import OutputExists
from mlpf.files.locking import Shard, is_locked, locked, require_unlocked

HOLDER = """
import sys, time
from pathlib import Path
from mlpf.files.locking import Shard, locked
index, count = int(sys.argv[2]), int(sys.argv[3])
with locked(Path(sys.argv[1]), "out", Shard(index, count) if count else None):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Start processes that hold the lock; return each when it does."""
    started = []

    def start(index=0, count=0):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path / "lock", str(index), str(count)], stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout.readline() == b"locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_told_who_is_at_work_until_kill_9(tmp_path, hold):
    first = hold()
    expected = f"out: process {first.pid} on {re.escape(socket.gethostname())} is at work there; wait"
    with pytest.raises(OutputExists, match=expected), locked(tmp_path / "lock", "out"):
        pass
    refused = pytest.raises(OutputExists, match=expected.replace("out:", "out, shard 1/2:"))
    with refused, locked(tmp_path / "lock", "out", Shard(1, 2)):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with locked(tmp_path / "lock", "out"):
        pass


def test_jobs_of_one_array_work_together_but_none_twice(tmp_path, hold):
    first = hold(1, 3)
    with locked(tmp_path / "lock", "out", Shard(2, 3)):
        pass
    for index, count in ((1, 3), (2, 2)):  # the same job, and one of another array
        refused = pytest.raises(OutputExists, match=rf"process {first.pid} on .* \(shard 1/3\)")
        with refused, locked(tmp_path / "lock", "out", Shard(index, count)):
            pass
    second = hold(2, 3)
    first.kill()
    first.wait()
    # Signed by the first, which is gone: the one that still works is named.
    refused = pytest.raises(OutputExists, match=rf"process {second.pid} on .* \(shard 2/3\)")
    with refused, locked(tmp_path / "lock", "out"):
        pass
    second.kill()
    second.wait()
    with locked(tmp_path / "lock", "out", Shard(1, 5)):
        pass


def test_a_lock_can_be_seen(tmp_path):
    assert not is_locked(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", "out"):
        assert is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")


def test_a_lock_ends_with_its_block(tmp_path):
    with pytest.raises(ValueError, match="inside"), locked(tmp_path / "lock", "out"):
        raise ValueError("inside")
    with locked(tmp_path / "lock", "out"):
        pass


def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, caplog):
    def unsupported(descriptor, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "lock", "out"):
        pass
    assert f"{tmp_path}: this file system has no locks" in caplog.text


def test_jobs_divide_the_work_without_overlap():
    items = list("abcdefg")
    parts = [Shard(i, 3).of(items) for i in (1, 2, 3)]
    assert parts == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_a_process_at_work_is_told_without_a_trace(tmp_path, hold):
    require_unlocked(tmp_path / "lock", "out")
    assert not (tmp_path / "lock").exists()
    holder = hold()
    content = (tmp_path / "lock").read_bytes()
    with pytest.raises(OutputExists, match=rf"out: process {holder.pid} on .* is at work there"):
        require_unlocked(tmp_path / "lock", "out")
    holder.kill()
    holder.wait()
    require_unlocked(tmp_path / "lock", "out")
    assert (tmp_path / "lock").read_bytes() == content
