import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from mlpf.export import ExportError, check_parity, export_onnx
from mlpf.export_samples import clic_like_events
from mlpf.layers.input_normalization import fit_normalization
from mlpf.models.outputs import OUTPUT_NAMES
from tests.support.models import LEARNED_PAIRS, TINY_GRAPH, tiny_model

# tf2onnx calls a function of numpy that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def model():
    model = tiny_model(input_encoding="clic_helix", use_normalizer=True)
    model.input_normalization.set_statistics(fit_normalization([clic_like_events(8, 60, seed=9)]))
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "run" / "model.onnx"
    return export_onnx(model, path, metadata={"dataset": "clic_edm4hep/ttbar 1.0.0"})


def test_onnx_agrees_with_keras(exported):
    assert exported.max_difference < 1e-3
    assert set(exported.per_output) == set(OUTPUT_NAMES)
    assert exported.num_events == 11
    assert exported.num_unstable_events <= 1


def test_axes_are_dynamic_and_outputs_concatenated(model, exported):
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, result.shape) == ("x", ["B", "N", 17], ["B", "N", 14])
    x = clic_like_events(2, 21, seed=77)
    found = session.run(None, {"x": x})[0]
    # float32; within 1e-3 as promised
    np.testing.assert_allclose(found[..., 10:11], np.asarray(model(x)["eta"]), atol=1e-3)


def test_metadata_says_what_a_user_needs(exported):
    entries = {p.key: p.value for p in onnx.load(exported.path).metadata_props}
    assert json.loads(entries["outputs"]) == list(OUTPUT_NAMES)
    assert json.loads(entries["output_widths"]) == [6, 3, 1, 1, 1, 1, 1]
    assert json.loads(entries["class_names"])[3] == "photon"
    assert json.loads(entries["track_columns"])[13] == "omega"
    assert json.loads(entries["bin_size"]) == 16
    assert np.shape(json.loads(entries["normalization"])["scale"]) == (3, 16)
    assert entries["dataset"] == "clic_edm4hep/ttbar 1.0.0"
    card = json.loads((exported.path.parent / "model_card.json").read_text())
    assert card["bin_size"] == 16
    assert card["onnx_difference"] == exported.per_output


def test_only_the_two_files_are_left(exported):
    assert sorted(p.name for p in exported.path.parent.iterdir()) == ["model.onnx", "model_card.json"]


def test_a_file_that_disagrees_is_refused(model, exported):
    other = tiny_model(seed=3, input_encoding="clic_helix", use_normalizer=True)
    with pytest.raises(ExportError, match="ONNX differs from Keras by"):
        check_parity(other, exported.path, [clic_like_events(1, 16)])


def test_a_failed_export_leaves_nothing(model, exported, tmp_path, monkeypatch):
    # Convert once per module: here a copy of another model's file takes the place of the conversion.
    monkeypatch.setattr("mlpf.export._convert", lambda _, path, *_rest: shutil.copy(exported.path, path))
    other = tiny_model(seed=3, input_encoding="clic_helix", use_normalizer=True)
    with pytest.raises(ExportError, match="no file was written"):
        export_onnx(other, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_events_on_the_edge_of_a_bin_are_counted_and_left_out(model, exported):
    # Nothing agrees to the last digit, and Keras itself moves with the last digit of its input.
    with pytest.raises(ExportError, match="1 of 1 events change bins"):
        check_parity(model, exported.path, [clic_like_events(1, 16)], tolerance=0.0)


@pytest.mark.parametrize("graph", [LEARNED_PAIRS, {**TINY_GRAPH, "kernel": {"dist_norm": "l1"}}])
def test_other_kernels_and_messages_agree_too(graph, tmp_path):
    done = export_onnx(tiny_model(combined_graph_layer=graph), tmp_path / "model.onnx", metadata={})
    assert done.max_difference < 1e-3
    assert done.num_unstable_events <= 1
