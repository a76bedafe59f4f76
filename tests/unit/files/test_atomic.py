import pytest

from mlpf.files.atomic import atomic_write, read_json, write_json


def test_complete_file_appears_under_the_final_name(tmp_path):
    with atomic_write(tmp_path / "x") as part:
        part.write_text("all", encoding="utf-8")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text(encoding="utf-8") == "all"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_failure_half_way_leaves_nothing_and_keeps_the_old_file(tmp_path):
    (tmp_path / "x").write_text("old", encoding="utf-8")

    def write_half():
        with atomic_write(tmp_path / "x") as part:
            part.write_text("ha", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_half()
    assert (tmp_path / "x").read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_json_is_found_again_or_empty(tmp_path):
    path = tmp_path / "x.json"
    assert read_json(path, list) == []
    write_json(path, {"a": [1, None]})
    assert read_json(path, dict) == {"a": [1, None]}
    assert read_json(path, list) == []
    path.write_text('{"a"', encoding="utf-8")
    assert read_json(path, dict) == {}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
