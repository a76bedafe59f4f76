"""A stored file in the published format goes through the command and gives the stored outputs."""

import numpy as np
import yaml
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.models.interface import OUTPUT_NAMES
from mlpf.models.published_weights import read_published_weights
from mlpf.runs.trained import load_run_config, load_trained_model
from tests.support.configs import write_config
from tests.support.published_fixture import EVENTS, FOLDER, PARAMETERS, WEIGHTS, write


def test_imported_weights_give_the_stored_outputs(tmp_path):
    path = write_config(tmp_path, yaml.safe_dump({"parameters": PARAMETERS}))
    run_dir = tmp_path / "run"
    arguments = ["import-weights", FOLDER / WEIGHTS, "-c", path, "-o", run_dir]
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    model, _ = load_trained_model(run_dir, load_run_config(run_dir))
    with np.load(FOLDER / EVENTS, allow_pickle=False) as stored:
        outputs = model(stored["X"])
        for name in OUTPUT_NAMES:
            expected = stored[f"out_{name}"]
            assert expected.dtype == np.float64
            assert np.abs(expected).max() > 0.1  # it says something
            np.testing.assert_allclose(np.asarray(outputs[name]), expected, atol=1e-4, rtol=0)


def test_the_stored_files_are_what_the_formulas_give(tmp_path):
    write(tmp_path)
    old, new = (read_published_weights(folder / WEIGHTS) for folder in (FOLDER, tmp_path))
    assert old.keys() == new.keys()
    for name in old:
        np.testing.assert_allclose(old[name], new[name], atol=1e-6, rtol=0)  # libm of another machine
    with np.load(FOLDER / EVENTS) as stored, np.load(tmp_path / EVENTS) as made:
        assert set(stored.files) == set(made.files)
        for name in stored.files:
            np.testing.assert_allclose(stored[name], made[name], atol=1e-5, rtol=0)
