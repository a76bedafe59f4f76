"""The package as a library: public names, cost of the import. test_docs_code.py runs the code of the page."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import mlpf
from mlpf.errors import CheckpointError, DataError
from mlpf.evaluation.particles import rows_from_outputs
from mlpf.workflows import import_weights
from tests.support.child_process import run_code
from tests.support.datasets import write_dataset
from tests.support.events import dijet_events
from tests.support.models import TINY_NETWORK, tiny_model
from tests.support.numpy_gnn import write_published

DATASET = "clic_edm4hep/ttbar"
NUM_EVENTS = 6
HEAVY = ("tensorflow", "keras", "numpy", "pydantic", "matplotlib", "awkward", "onnx", "yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as docs/library.md has it: a dataset and a run of a small network."""
    folder = tmp_path_factory.mktemp("library")
    built = write_dataset(folder / "made", {"test": dijet_events(NUM_EVENTS)})
    place = folder / "tensorflow_datasets" / DATASET / "1.0.0"
    place.parent.mkdir(parents=True)
    shutil.move(built, place)
    config = mlpf.load_config("clic-demo").with_overrides({"parameters": TINY_NETWORK})
    write_published(folder / "weights.hdf5", tiny_model())
    import_weights.run(config, folder / "weights.hdf5", folder / "experiments" / "first")
    return folder


@pytest.fixture
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return mlpf.load_config("clic-demo").with_data_dir("tensorflow_datasets")


def blocks_of_the_page(repo_root):
    page = (repo_root / "docs" / "library.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


def test_every_public_name_is_on_the_page_and_documented(repo_root):
    page = (repo_root / "docs" / "library.md").read_text(encoding="utf-8")
    for name in mlpf.__all__:
        value = getattr(mlpf, name)
        if name == "__version__":
            continue
        assert re.search(rf"`{name}\b", page), name
        assert inspect.getdoc(value), name
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            parameters = signature.parameters.values()
            assert signature.return_annotation is not inspect.Signature.empty, name
            assert all(p.annotation is not inspect.Parameter.empty for p in parameters), name


def test_a_type_checker_knows_types_and_what_is_private(repo_root, tmp_path):
    wrong = ["mlpf.load_config(3.0)", "mlpf.training", "reveal_type(predictions)"]
    page = "\n".join([*blocks_of_the_page(repo_root), *wrong])
    (tmp_path / "page.py").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "page.py", "--ignore-missing-imports", "--cache-dir", "cache"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": "", "PYTHONPATH": str(repo_root)},
        capture_output=True,
        text=True,
    )
    first, second, revealed, summary = done.stdout.splitlines()
    assert 'Argument 1 to "load_config" has incompatible type "float"; expected "str | Path"' in first
    assert 'Module has no attribute "training"' in second
    assert 'Revealed type is "mlpf.evaluation.predictions.Predictions"' in revealed
    assert summary.startswith("Found 2 errors in 1 file")


def test_type_checkers_see_the_public_names(repo_root):
    tree = ast.parse((repo_root / "mlpf" / "__init__.py").read_text(encoding="utf-8"))
    found = {
        alias.name: node.module
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == mlpf._PUBLIC
    assert set(mlpf.__all__) == {"__version__", *found}
    assert dir(mlpf) == sorted(mlpf.__all__)


def test_what_is_private_is_no_attribute():
    with pytest.raises(AttributeError, match=r"no attribute 'traine'; public are .*load_config"):
        _ = mlpf.traine


def test_import_loads_nothing_and_a_configuration_no_network(repo_root):
    code = f"""
import json, sys
import mlpf
after_import = sorted(set({HEAVY!r}) & set(sys.modules))
mlpf.load_config("clic-demo")
heavy = {{"tensorflow", "keras", "matplotlib", "awkward", "onnx"}}
print(json.dumps([after_import, sorted(heavy & set(sys.modules))]))
"""
    assert run_code(repo_root, code) == [[], []]


def test_events_are_those_that_were_written(in_folder):
    dataset = mlpf.open_dataset(in_folder, DATASET)
    written = dijet_events(NUM_EVENTS)
    assert (dataset.name, dataset.split, len(dataset)) == (DATASET, "test", NUM_EVENTS)
    assert dataset.lengths.tolist() == [12] * NUM_EVENTS
    read = {event["event"]: event for event in dataset}  # in the order of a hash
    for event in written:
        found = read.pop(str(event.pop("event")))
        for field, values in event.items():
            np.testing.assert_array_equal(found[field], values)
    assert read == {}
    np.testing.assert_array_equal(dataset[-1]["ygen"], dataset[NUM_EVENTS - 1]["ygen"])
    for index in (NUM_EVENTS, -NUM_EVENTS - 1):
        with pytest.raises(IndexError, match=r"ttbar: no event -?\d, split 'test' has 6"):
            dataset[index]


def test_a_model_has_the_weights_of_its_run_and_the_policy_stays(in_folder):
    before = keras.config.dtype_policy().name
    model = mlpf.load_model("experiments/first")
    assert model.checkpoint.name == "imported"
    assert model.config.parameters.node_encoding_hidden_dim == TINY_NETWORK["node_encoding_hidden_dim"]
    expected = tiny_model()
    assert any(
        (a.numpy() != b.numpy()).any() for a, b in zip(model.network.weights, expected.weights, strict=True)
    )
    expected.load_weights(model.checkpoint / "model.weights.h5")
    for found, saved in zip(model.network.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(found.numpy(), saved.numpy())
    half = mlpf.build_network(model.config.with_overrides({"setup.dtype": "mixed_float16"}))
    assert {layer.dtype_policy.name for layer in half._flatten_layers()} >= {"mixed_float16"}
    assert keras.config.dtype_policy().name == before
    with pytest.raises(CheckpointError, match="not a run directory"):
        mlpf.load_model("tensorflow_datasets")


def test_predictions_are_what_the_network_says_event_by_event(in_folder):
    model, dataset = mlpf.load_model("experiments/first"), mlpf.open_dataset(in_folder, DATASET)
    predictions = mlpf.predict(model, dataset, num_events=4, batch_size=3)
    assert predictions.num_events == 4
    threshold = model.config.evaluation_none_threshold
    found = np.split(predictions.elements["pred.cls"], 4)
    for event, classes in zip(dataset, found, strict=False):
        outputs = {k: v.numpy() for k, v in model.network(event["X"][None]).items()}
        alone = rows_from_outputs(outputs, np.array([12]), threshold)
        np.testing.assert_array_equal(classes, alone[:, 0])
    with pytest.raises(DataError, match="0 events to predict"):
        mlpf.predict(model, dataset, num_events=0)
