import importlib.util
import subprocess
import sys

import pytest

from mlpf.config.training_schema import CometConfig
from mlpf.errors import ConfigError
from mlpf.files.run_directory import RunDirectory
from mlpf.training.monitors.comet import CometLogger, check_comet, flatten
from tests.support import stub_packages
from tests.support.child_process import run_code

PARAMETERS = {"setup": {"lr": 1e-3}, "datasets": {"a/b": {"version": "1.0.0"}}}


@pytest.fixture
def comet(monkeypatch):
    """The package, installed and with an API key."""
    monkeypatch.setenv("COMET_API_KEY", "very secret")
    return stub_packages.comet_ml(monkeypatch)


def test_epochs_parameters_and_name_are_logged(tmp_path, comet):
    run = tmp_path / "my_run"
    run.mkdir()
    logger = CometLogger(CometConfig(project="mlpf", workspace="cern"), run, PARAMETERS)
    history = [{"epoch": 1, "loss": 2.0}]
    logger(history)
    history.append({"epoch": 2, "loss": 1.0, "val_jet_response_iqr": 0.06})
    logger(history)
    logger.close()

    (experiment,) = comet.experiments
    assert experiment.kind == "Experiment"
    assert (experiment.options["project_name"], experiment.options["workspace"]) == ("mlpf", "cern")
    assert experiment.options["log_code"] is False
    assert experiment.name == "my_run"
    assert experiment.parameters == {"setup.lr": 1e-3, "datasets.a/b.version": "1.0.0"}
    assert experiment.metrics == [(1, {"loss": 2.0}), (2, {"loss": 1.0, "val_jet_response_iqr": 0.06})]
    assert experiment.ended


def test_a_resumed_run_continues_its_experiment(tmp_path, comet):
    config = CometConfig(project="mlpf", name="baseline")
    first, second = (CometLogger(config, tmp_path, PARAMETERS) for _ in range(2))
    first.close()
    second([{"epoch": 7, "loss": 1.0}])
    new, existing = comet.experiments
    assert (new.kind, existing.kind) == ("Experiment", "ExistingExperiment")
    assert existing.key == new.key
    assert (new.name, existing.name) == ("baseline", None)
    assert existing.metrics == [(7, {"loss": 1.0})]


def test_offline_experiments_are_written_into_the_run_directory(tmp_path, comet):
    for _ in range(2):
        CometLogger(CometConfig(project="mlpf", offline=True), tmp_path, PARAMETERS)
    assert [e.kind for e in comet.experiments] == ["OfflineExperiment", "ExistingOfflineExperiment"]
    assert {e.options["offline_directory"] for e in comet.experiments} == {str(tmp_path / "comet")}
    assert (tmp_path / "comet").is_dir()


def test_the_api_key_is_never_written(tmp_path, comet):
    CometLogger(CometConfig(project="mlpf"), tmp_path, PARAMETERS)
    assert "secret" not in "".join(p.read_text(encoding="utf-8") for p in tmp_path.rglob("*") if p.is_file())
    assert "secret" not in repr(comet.experiments[0].options)


@pytest.mark.skipif(importlib.util.find_spec("comet_ml") is not None, reason="Comet is installed here")
def test_a_missing_package_says_what_to_install(repo_root):
    said = run_code(
        repo_root,
        """
import json
from mlpf.config.training_schema import CometConfig
from mlpf.errors import MissingDependency
from mlpf.training.monitors.comet import check_comet
try:
    check_comet(CometConfig(project="mlpf"))
except MissingDependency as error:
    print(json.dumps(str(error)))
""",
    )
    assert said.startswith("callbacks.comet: ")
    assert "pip install comet-ml" in said


def test_a_missing_api_key_is_only_needed_online(monkeypatch, comet):
    monkeypatch.delenv("COMET_API_KEY")
    check_comet(CometConfig(project="mlpf", offline=True))
    with pytest.raises(ConfigError, match="no API key in the environment; set COMET_API_KEY"):
        check_comet(CometConfig(project="mlpf"))


def test_what_comet_refuses_is_one_line(tmp_path, comet):
    comet.refuses = "this API key\nis not valid"
    with pytest.raises(ConfigError, match=r"could be opened \(ValueError: this API key is not valid\)"):
        CometLogger(CometConfig(project="mlpf"), tmp_path, PARAMETERS)


def test_a_damaged_key_file_is_refused(tmp_path, comet):
    RunDirectory(tmp_path).comet_key.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no experiment key; remove it"):
        CometLogger(CometConfig(project="mlpf"), tmp_path, PARAMETERS)


def test_nested_values_get_dotted_names():
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_the_adapter_is_imported_only_if_asked():
    code = "import sys, mlpf.runs.hooks; sys.exit('mlpf.training.monitors.comet' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
