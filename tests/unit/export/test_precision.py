import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType

from mlpf.config.detector import CLIC
from mlpf.export import ExportError, export_onnx, exporting, open_session
from mlpf.export.precision import (
    FLOAT16_MAX,
    LARGEST_INT8_WEIGHT,
    float16_magnitudes,
    largest_int8_weight,
    quantize,
    refuse_overflow,
    refuse_saturation,
    with_policy,
)
from mlpf.models.interface import concatenate_outputs
from tests.support.events import clic_like_events
from tests.support.int8 import products, quantize_with, saturating_product
from tests.support.models import TINY_GRAPH, tiny_model, tiny_transformer


@pytest.mark.parametrize("build", [tiny_model, tiny_transformer])
def test_a_twin_has_the_same_weights_under_another_policy(build):
    model = build(input_encoding="clic_helix")
    twin = with_policy(model, "mixed_float16")
    assert twin.dtype_policy.name == "mixed_float16"
    assert model.dtype_policy.name == "float32"
    for a, b in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.dtype == a.dtype
    x = clic_like_events(1, 16)
    found, expected = (np.asarray(concatenate_outputs(m(x))) for m in (twin, model))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() > 0
    assert with_policy(model, "float32") is model


# scopes of weights, and whether int8 takes them
PLACES = {
    "net/cg_id_0_1/message_0_1/Tensordot/MatMul": True,
    "net/encoder_0_1/attention_1/query_1/Tensordot/MatMul": True,
    "net/encoder_0_1/ffn_hidden_1/Tensordot/MatMul": True,
    "net/cg_id_0_1/ffn_dist_1/dense_0_1/Tensordot/MatMul": False,
    "net/cg_id_0_1/binning_1/Tensordot/MatMul": False,
    "net/cg_id_0_1/kernel_1/ffn_node_1/dense_0_1/MatMul": False,
    "net/cg_id_0_1/kernel_1/Tensordot/MatMul": False,
    "net/encoder_0_1/attention_1/Tensordot/MatMul": False,
    "net/encoder_0_1/attention_1/Tensordot_1/MatMul": False,
    "net/node_encoding_1/dense_0_1/Tensordot/MatMul": False,
    "net/embedding_1/Tensordot/MatMul": False,
    "net/output_decoding_1/ffn_id_1/dense_0_1/Tensordot/MatMul": False,
}


def product(weight, name="net/message/MatMul"):
    """Return a graph of one product, x [N, K] times the weights [K, M]."""
    num_inputs, num_outputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", num_inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", num_outputs])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)


def run(proto, x):
    return open_session(proto.SerializeToString()).run(None, {"x": x.astype(np.float32)})[0]


@pytest.mark.parametrize(("name", "taken"), PLACES.items())
def test_what_decides_stays_float32(name, taken):
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((8, 4)), rng.uniform(-1.0, 1.0, (5, 8))
    model = product(weight, name)
    result = quantize(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert ("MatMulInteger" in [node.op_type for node in result.graph.node]) == taken
    assert result.opset_import[0].version == 12
    # float32 leaves 24 bits of sums of 8 products below 10, int8 at least one of 8 bits of them
    difference = np.abs(run(result, x) - x @ weight).max()
    assert difference > 1e-3 if taken else difference < 1e-5


@pytest.mark.parametrize("num_inputs", [2, 8, 64, 256])
def test_int8_is_exact_where_nothing_is_rounded(num_inputs):
    """Whole numbers that 8 and 7 bits hold, largest against largest: any sum that saturates shows."""
    rng = np.random.default_rng(num_inputs)
    weight = rng.integers(-64, 65, (num_inputs, 8))
    weight[:, 0], weight[:, 1], weight[0, 2:] = 64, -64, 64
    scale = 2.0 ** np.arange(-4, 4)  # a scale of its own for each column
    x = rng.integers(-127, 129, (9, num_inputs))
    x[0], x[1] = 128, -127  # 255 and 0 after rounding
    x[2], x[3] = np.where(weight[:, 3] > 0, 128, -127), np.where(weight[:, 3] < 0, 128, -127)
    found = run(quantize(product(weight * scale)), x / 128)
    # integers below 2^24 times powers of two: float32 holds them
    np.testing.assert_array_equal(found, (x @ weight) * scale / 128)


def test_pairs_saturate_only_with_larger_weights():
    x = np.full((1, 8), 255, np.uint8)
    weight = np.repeat(np.array([[127, -128, 64, -64, 65]], np.int8), 8, axis=0)
    # 4 pairs, each at most 32767 and at least -32768; 255 * 64 * 8 = 130560
    assert saturating_product(x, weight).tolist() == [[131068, -131072, 130560, -130560, 131068]]
    assert LARGEST_INT8_WEIGHT == 64


@pytest.mark.parametrize("num_inputs", [8, 256])
@pytest.mark.parametrize("kind", ["normal", "positive", "one scale"])
def test_no_pair_of_int8_weights_can_saturate(num_inputs, kind):
    """On any machine, with the stored integers: what a processor without VNNI computes is exact."""
    weight = np.random.default_rng(1).standard_normal((num_inputs, 16))
    weight = {"normal": weight, "positive": np.abs(weight), "one scale": np.sign(weight)}[kind]
    proto = quantize(product(weight))
    refuse_saturation(proto, "m.onnx")
    assert largest_int8_weight(proto) == LARGEST_INT8_WEIGHT
    ((stored, worst),) = products(proto)
    np.testing.assert_array_equal(saturating_product(worst, stored), worst.astype(int) @ stored.astype(int))
    # the same with all 8 bits
    ((stored, worst),) = products(quantize_with(product(weight), QuantType.QInt8))
    assert (saturating_product(worst, stored) != worst.astype(int) @ stored.astype(int)).any()


def test_weights_that_may_saturate_are_refused():
    weight = np.random.default_rng(2).standard_normal((8, 4))
    with pytest.raises(ExportError, match=r"^m_int8.onnx: int8 weights reach 127, allowed 64: .* VNNI"):
        refuse_saturation(quantize_with(product(weight), QuantType.QInt8), "m_int8.onnx")
    refuse_saturation(quantize_with(product(weight), QuantType.QUInt8), "m_int8.onnx")
    assert largest_int8_weight(product(weight)) is None
    least = product(weight)
    least.graph.initializer.append(numpy_helper.from_array(np.array([-128], np.int8), "least"))
    assert largest_int8_weight(least) == 128


@pytest.mark.parametrize("num_inputs", [8, 256])
def test_int8_differs_by_rounding_alone(num_inputs):
    """Against float32: what 7 bits of weights and 8 of inputs leave, far below what saturation does."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((num_inputs, 64)) * 10.0 ** rng.uniform(-3, 0, 64)
    x = rng.uniform(-1.0, 1.0, (512, num_inputs))
    exact = x @ weight
    error = np.sqrt(((run(quantize(product(weight)), x) - exact) ** 2).mean(axis=0))
    # A rounded number is off by a step over the root of 12. The rms of K such errors, each drawn once, is
    # known to 1 / sqrt(5 K) of itself; room is more than eight times that.
    steps = np.abs(weight).max(axis=0) / 64, 2 / 255
    expected = np.sqrt(
        num_inputs / 12 * ((x**2).mean() * steps[0] ** 2 + (weight**2).mean(axis=0) * steps[1] ** 2)
    )
    room = 1 + 4 / np.sqrt(num_inputs)
    assert (error < room * expected).all()
    # what all 8 bits give without VNNI, with the arithmetic of such a processor
    ((stored, _),) = products(quantize_with(product(weight), QuantType.QInt8))
    rounded = np.rint(x * 127.5 + 127.5).astype(np.uint8)
    sums = saturating_product(rounded, stored) - 127.5 * stored.sum(axis=0, dtype=int)
    saturated = sums / 127.5 * np.abs(weight).max(axis=0) / 127
    assert np.sqrt(((saturated - exact) ** 2).mean()) > 2 * room * np.sqrt((expected**2).mean())


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
