"""The file of a training: found again, and forgiving."""

import json

from mlpf.ensemble.state import MemberFiles, MemberState, read_history, read_state


def test_a_state_is_found_again(tmp_path):
    files = MemberFiles(tmp_path, "a")
    files.state.parent.mkdir()
    state = MemberState("failed", "nan", "why", 3, 2, 1, 4.5, "node-1")
    state.write(files)
    assert read_state(files) == state


def test_what_has_no_file_or_a_damaged_one_waits(tmp_path):
    files = MemberFiles(tmp_path, "a")
    files.state.parent.mkdir()
    assert read_state(files) == MemberState("waiting")
    files.state.write_text('{"sta', encoding="utf-8")
    assert read_state(files) == MemberState("waiting")
    files.state.write_text(json.dumps({"state": 3, "attempts": "x", "crashes": 2}), encoding="utf-8")
    assert read_state(files) == MemberState("waiting", crashes=2)


def test_a_history_that_cannot_be_read_is_empty(tmp_path):
    files = MemberFiles(tmp_path, "a")
    assert read_history(files) == []
    files.history.parent.mkdir(parents=True)
    for text, expected in (("[3]", []), ("{", []), ('[{"epoch": 1}]', [{"epoch": 1}])):
        files.history.write_text(text, encoding="utf-8")
        assert read_history(files) == expected
