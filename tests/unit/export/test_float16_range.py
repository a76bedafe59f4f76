import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpf.config.detector import CLIC
from mlpf.export import ExportError, export_onnx, exporting
from mlpf.export.float16_range import FLOAT16_MAX, float16_magnitudes, refuse_overflow
from tests.support.models import TINY_GRAPH, tiny_model


def half_graph(factor):
    """Return y = float32(float16(x) * factor - factor) of x [N], the middle in float16."""
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "factor"], ["product"]),
        helper.make_node("Sub", ["product", "factor"], ["difference"]),
        helper.make_node("Cast", ["difference"], ["y"], to=TensorProto.FLOAT),
    ]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    constant = numpy_helper.from_array(np.array(factor, np.float16), "factor")
    graph = helper.make_graph(nodes, "test", sides[:1], sides[1:], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)


def test_magnitudes_by_hand():
    batches = [np.array([1.0, -3.0], np.float32), np.zeros(0, np.float32), np.array([2.0], np.float32)]
    found = float16_magnitudes(half_graph(8.0), batches)
    assert found == {"factor": 8.0, "half": 3.0, "product": 24.0, "difference": 32.0}
    refuse_overflow(found, "m.onnx")


@pytest.mark.parametrize(
    ("values", "factor", "place"),
    [
        ([300.0], 256.0, "product"),
        ([-7e4], 1.0, "half"),
        ([np.nan], 1.0, "half"),
        ([0.0], np.inf, "factor"),
    ],
)
def test_what_leaves_the_range_is_named_at_its_first_place(values, factor, place):
    found = float16_magnitudes(half_graph(factor), [np.array(values, np.float32)])
    with pytest.raises(ExportError, match=rf"^m.onnx: float16 ends at 65504, but numbers in {place} reach"):
        refuse_overflow(found, "m.onnx")


def test_what_is_cut_off_at_the_end_is_refused_too():
    refuse_overflow({"a": np.nextafter(FLOAT16_MAX, 0.0)}, "m.onnx")
    with pytest.raises(ExportError, match=r"numbers in a reach 6.55e\+04"):
        refuse_overflow({"a": FLOAT16_MAX}, "m.onnx")


def test_float32_has_nothing_to_look_at():
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    assert float16_magnitudes(helper.make_model(graph), [np.ones(3, np.float32)]) == {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_messages_that_are_cut_off_are_not_exported(tmp_path, monkeypatch):
    """A message sums over a bin. Cut off at 65504, a third of the elements changed class without a word."""
    graph = {
        **TINY_GRAPH,
        "bin_size": 64,
        "max_num_bins": 16,
        "num_node_messages": 6,
        "kernel": {"exact_diagonal": True},
        "node_message": {"output_dim": 64},
    }
    monkeypatch.setattr(exporting, "PARITY_SHAPES", ((1, 256),))
    with pytest.raises(ExportError, match=r"m_float16.onnx: float16 ends at 65504, but numbers in \S*cg_"):
        export_onnx(
            tiny_model(combined_graph_layer=graph),
            tmp_path / "m.onnx",
            precisions=("float16",),
            detector=CLIC,
        )
    assert list(tmp_path.iterdir()) == []
