import pytest

from mlpf.errors import CheckpointError
from mlpf.files.run_directory import SEARCH_FILE
from mlpf.search.options import TrialOptions, read_options


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (TrialOptions(), []),
        (TrialOptions(ntrain=500), ["--ntrain", "500"]),
        (TrialOptions(500, 100, devices=4), ["--ntrain", "500", "--ntest", "100"]),
    ],
)
def test_options_come_back_and_become_arguments(tmp_path, options, arguments):
    options.write(tmp_path)
    assert read_options(tmp_path) == options
    assert options.arguments() == arguments


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{}",
        "[]",
        '{"ntrain": "5", "ntest": 1, "devices": 1}',
        '{"ntrain": true, "ntest": null, "devices": 1}',
        '{"ntrain": null, "ntest": null, "devices": null}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / SEARCH_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=SEARCH_FILE):
        read_options(tmp_path)
