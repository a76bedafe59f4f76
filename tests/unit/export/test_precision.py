import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mlpf.export import open_session
from mlpf.export.precision import quantize, with_policy
from mlpf.export_samples import clic_like_events
from mlpf.models.outputs import concatenate_outputs
from tests.support.models import tiny_model, tiny_transformer


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


@pytest.mark.parametrize(("name", "taken"), PLACES.items())
def test_what_decides_stays_float32(name, taken):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 4)).astype(np.float32)
    weight[:, 0] *= 1e-3  # a column of its own scale
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    result = quantize(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert ("MatMulInteger" in [node.op_type for node in result.graph.node]) == taken
    assert result.opset_import[0].version == 12
    x = rng.uniform(-1.0, 1.0, (5, 8)).astype(np.float32)
    found, expected = open_session(result.SerializeToString()).run(None, {"x": x})[0], x @ weight
    # per column: half a step of the weights (1/127 of the largest) and of x (1/127), over 8 products
    bound = 8 * (0.5 / 127 * np.abs(weight).max(axis=0) * 2 + 1e-9)
    assert (np.abs(found - expected).max(axis=0) <= (bound if taken else 1e-5)).all()
