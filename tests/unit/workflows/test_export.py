import json

import onnx
import pytest
import yaml
from click.testing import CliRunner

from mlpf.cli.results import export as command
from mlpf.config import load_config
from mlpf.export import ExportError
from mlpf.workflows import export, import_weights
from tests.support.configs import write_config
from tests.support.models import tiny_config, tiny_model
from tests.support.numpy_gnn import write_published


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_published(folder / "a.hdf5", tiny_model())
    config = load_config(write_config(folder, yaml.safe_dump({"parameters": tiny_config().model_dump()})))
    import_weights.run(config, folder / "a.hdf5", folder / "run")
    return folder / "run"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_files_for_cmssw(run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["-t", run_dir, "-o", tmp_path / "pf.onnx", "--target", "cmssw"]
    arguments += ["--precision", "float32", "--precision", "int8"]
    done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    for text in ("int8", "sin_phi", "class flips", "unstable events", "pf_int8.onnx"):
        assert text in done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model_card.json", "pf.onnx", "pf_int8.onnx"]
    card = json.loads((tmp_path / "model_card.json").read_text(encoding="utf-8"))
    assert card["target"] == "cmssw"
    assert list(card["files"]) == ["float32", "int8"]
    graph = onnx.load(tmp_path / "pf_int8.onnx").graph
    assert [value.name for value in graph.input] == ["x:0"]


def test_an_opset_that_cmssw_does_not_take_is_refused(run_dir, tmp_path):
    with pytest.raises(ExportError, match="--opset 17: target cmssw takes 12 to 12; leave it out for 12"):
        export.run(run_dir, output=tmp_path / "m.onnx", target="cmssw", opset=17)
    assert list(tmp_path.iterdir()) == []


def test_the_options_are_those_of_the_export(run_dir):
    from mlpf.export import PRECISIONS, RUNTIMES

    options = {option.name: option for option in command.params}
    assert tuple(options["target"].type.choices) == tuple(RUNTIMES)
    assert tuple(options["precisions"].type.choices) == PRECISIONS
