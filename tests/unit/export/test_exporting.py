"""Export as a whole: both models in every precision for every runtime."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType

from mlpf.config.detector import CLIC
from mlpf.export import RUNTIMES, ExportError, export_onnx, exporting
from mlpf.export.parity import TOLERANCE
from mlpf.layers.input_normalization import fit_normalization
from mlpf.models.interface import OUTPUT_NAMES
from tests.support.events import clic_like_events
from tests.support.int8 import products, quantize_with, saturating_product
from tests.support.models import tiny_model, tiny_transformer

# tf2onnx calls a function of numpy that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PRECISIONS = ("float32", "float16", "int8")
# Two of the four pairs in every precision; the other two in float32, in test_conversion.
CASES = {"graph": (tiny_model, "onnxruntime"), "transformer": (tiny_transformer, "cmssw")}


def normalised(build):
    model = build(input_encoding="clic_helix", use_normalizer=True)
    model.input_normalization.set_statistics(fit_normalization([clic_like_events(8, 60, seed=9)]))
    return model


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    build, target = CASES[request.param]
    model = normalised(build)
    path = tmp_path_factory.mktemp("export") / "run" / "model.onnx"
    metadata = {"checkpoint": "epoch_3"}
    files = export_onnx(model, path, target=target, precisions=PRECISIONS, metadata=metadata, detector=CLIC)
    return model, RUNTIMES[target], files


def test_float32_agrees_with_keras_on_every_event(exported):
    model, _, files = exported
    parity = files["float32"].parity
    assert max(parity.stable.values()) < TOLERANCE
    assert set(parity.outputs) == set(OUTPUT_NAMES)
    assert parity.num_events == 11
    # nine tenths of each shape; the graph network has bins for 1024 elements only
    last = 2304 if model.max_num_elements is None else 922
    assert parity.num_elements == 231 + 2 * 270 + 3 * 58 + 4 * 900 + last
    assert parity.num_unstable_elements <= 0.01 * parity.num_elements


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_file_keeps_names_axes_and_padding(exported, precision):
    _, runtime, files = exported
    session = onnxruntime.InferenceSession(str(files[precision].path), providers=["CPUExecutionProvider"])
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == (runtime.input_name, "tensor(float)", ["B", "N", 17])
    assert (result.name, result.type, result.shape) == ("particles", "tensor(float)", ["B", "N", 14])
    for shape in ((2, 21), (1, 40)):
        x = clic_like_events(*shape, seed=77)
        found = session.run(None, {runtime.input_name: x})[0]
        assert found.shape == (*shape, 14)
        assert not found[x[..., 0] == 0].any()
    (opset,) = (o.version for o in onnx.load(files[precision].path).opset_import if o.domain == "")
    assert opset == runtime.opset == files[precision].opset


def test_reduced_precisions_are_other_numbers_but_close(exported):
    _, _, files = exported
    # With the same bins only rounding is left: float16 (11 bits) gives 0.0025; int8 (7 bits of the weights, 8
    # of the inputs) gives 0.09 and 0.6 % class flips, with AVX2 as with VNNI. The limits are at least twice
    # that. Sums that saturate give 0.22 in the graph network, 2.4 and 14 % in the transformer.
    for precision, limit, most_flips in (("float16", 0.01, 0.01), ("int8", 0.18, 0.03)):
        parity = files[precision].parity
        largest = max(parity.same_bins.largest.values())
        assert TOLERANCE < largest < limit
        for differences in (parity.same_bins, parity.own_bins):
            for name in OUTPUT_NAMES:
                assert differences.percentile_99[name] <= differences.largest[name]
        assert parity.class_flip_share < most_flips


def test_reduced_precisions_hold_smaller_weights(exported):
    _, _, files = exported
    half = onnx.load(files["float16"].path)
    kinds = {c.data_type for c in half.graph.initializer if np.prod(c.dims) > 50}
    assert onnx.TensorProto.FLOAT16 in kinds
    ops = [node.op_type for node in onnx.load(files["int8"].path).graph.node]
    assert "MatMulInteger" in ops


def test_int8_files_are_exact_without_vnni(exported):
    """The integers of the written file, with the arithmetic of a processor without VNNI."""
    _, _, files = exported
    stored = products(onnx.load(files["int8"].path))
    assert len(stored) >= 2
    for weight, worst in stored:
        exact = worst.astype(int) @ weight.astype(int)
        np.testing.assert_array_equal(saturating_product(worst, weight), exact)
    assert files["int8"].largest_int8_weight == max(np.abs(w.astype(int)).max() for w, _ in stored) == 64
    assert files["float32"].largest_int8_weight is None


def test_int8_that_would_saturate_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "quantize", lambda proto: quantize_with(proto, QuantType.QInt8))
    with pytest.raises(ExportError, match=r"m_int8.onnx: int8 weights reach 127, allowed 64"):
        export_onnx(tiny_transformer(), tmp_path / "m.onnx", precisions=("float32", "int8"), detector=CLIC)
    assert list(tmp_path.iterdir()) == []


def test_one_card_describes_all_files(exported):
    _, runtime, files = exported
    folder = files["float32"].path.parent
    names = ["model.onnx", "model_card.json", "model_float16.onnx", "model_int8.onnx"]
    assert sorted(p.name for p in folder.iterdir()) == names
    card = json.loads((folder / "model_card.json").read_text(encoding="utf-8"))
    assert card["checkpoint"] == "epoch_3"
    assert card["target"] == runtime.name
    assert set(card["files"]) == set(PRECISIONS)
    for precision, facts in card["files"].items():
        assert facts["file"] == files[precision].path.name
        assert facts["opset"] == runtime.opset
        assert facts["num_bytes"] == files[precision].path.stat().st_size
        assert facts["parity"] == files[precision].parity.as_dict()
        entries = {p.key: p.value for p in onnx.load(files[precision].path).metadata_props}
        assert entries["precision"] == precision
        assert json.loads(entries["outputs"]) == list(OUTPUT_NAMES)
        assert json.loads(entries["output_widths"]) == [6, 3, 1, 1, 1, 1, 1]
        assert json.loads(entries["track_columns"])[13] == "omega"
        assert np.shape(json.loads(entries["normalization"])["scale"]) == (3, 16)


def test_bad_numbers_in_the_input_do_what_they_do_in_keras(exported):
    model, runtime, files = exported
    x = clic_like_events(1, 40, seed=5)
    x[0, 3, 7], x[0, 20, 8], x[0, 30, 2] = np.nan, np.inf, -np.inf
    session = onnxruntime.InferenceSession(str(files["float32"].path), providers=["CPUExecutionProvider"])
    found = session.run(None, {runtime.input_name: x})[0]
    expected = np.concatenate([np.asarray(v) for v in model(x).values()], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_a_failed_export_leaves_nothing(exported, tmp_path, monkeypatch):
    model, _, files = exported
    report = files["int8"].parity
    monkeypatch.setattr(exporting, "convert", lambda *_: onnx.load(files["float32"].path))
    monkeypatch.setattr(exporting, "check_parity", lambda *_: replace(report, finite=False))
    with pytest.raises(ExportError, match=r"m_int8.onnx: int8 overflows: NaN, .*; no file was written"):
        export_onnx(model, tmp_path / "m.onnx", precisions=("int8",), detector=CLIC)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_the_way_is_named(tmp_path):
    (tmp_path / "m_int8.onnx").mkdir()
    with pytest.raises(ExportError, match=r"m_int8.onnx: is a directory"):
        export_onnx(tiny_transformer(), tmp_path / "m.onnx", precisions=("float32", "int8"), detector=CLIC)


def test_the_card_keeps_its_name_to_itself(tmp_path):
    with pytest.raises(ExportError, match="is the name of the model card"):
        export_onnx(tiny_transformer(), tmp_path / "model_card.json", detector=CLIC)
    (tmp_path / "model_card.json").mkdir()
    with pytest.raises(ExportError, match=r"model_card.json: is a directory"):
        export_onnx(tiny_transformer(), tmp_path / "m.onnx", detector=CLIC)
    assert [p.name for p in tmp_path.iterdir()] == ["model_card.json"]
