import pytest

from mlpf.errors import OutputExists
from mlpf.files.run_directory import LOCK_FILE
from mlpf.search.directory import ENGINE_FOLDER, require_empty


def test_a_directory_with_what_is_left_of_an_attempt_to_start_is_empty(tmp_path):
    require_empty(tmp_path / "missing")
    (tmp_path / LOCK_FILE).touch()
    (tmp_path / ENGINE_FOLDER / "20260101-000000-1").mkdir(parents=True)
    require_empty(tmp_path)
    (tmp_path / "oracle.json").touch()
    with pytest.raises(OutputExists, match="is not empty"):
        require_empty(tmp_path)
