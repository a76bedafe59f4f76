import contextlib
import socket

import pytest

from mlpf.errors import OutputExists
from mlpf.tuning.directory import claim_name, require_empty


def test_a_directory_with_locks_only_is_empty(tmp_path):
    require_empty(tmp_path / "missing")
    for name in (".lock", ".w.lock"):
        (tmp_path / name).touch()
    require_empty(tmp_path)
    (tmp_path / "oracle.json").touch()
    with pytest.raises(OutputExists, match="is not empty"):
        require_empty(tmp_path)


def test_launchers_without_a_name_take_the_first_that_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "my chief.example.org")
    with contextlib.ExitStack() as stack:
        assert claim_name(None, tmp_path, stack) == "my-c"
        assert claim_name(None, tmp_path, stack) == "my-c-2"
        with pytest.raises(OutputExists, match="--name my-c: a launcher of that name is at work"):
            claim_name("my-c", tmp_path, stack)
    with contextlib.ExitStack() as stack:
        assert claim_name(None, tmp_path, stack) == "my-c"
