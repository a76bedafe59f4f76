import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mlpf.export import open_session
from mlpf.export.rewriting import merge_tensordots, remove_unused, restore_norms


def model_of(nodes, constants, opset, output, width=3):
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "N", width])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", "N", None])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def run(model, x):
    return open_session(model.SerializeToString()).run(None, {"x": x})[0]


def tensordot(name="a/Tensordot"):
    """Nodes as the converter writes the product of a tensor with a matrix."""
    return [
        helper.make_node("Shape", ["x"], ["s"], "shape"),
        helper.make_node("Gather", ["s", "free"], ["g"], "gather"),
        helper.make_node("Concat", ["g", "last"], ["t"], "concat", axis=0),
        helper.make_node("Reshape", ["x", "flat"], ["r"], f"{name}/Reshape"),
        helper.make_node("MatMul", ["r", "w"], ["m"], f"{name}/MatMul"),
        helper.make_node("Reshape", ["m", "t"], ["y"], name),
    ]


CONSTANTS = {
    "free": np.array([0, 1], np.int64),
    "last": np.array([2], np.int64),
    "flat": np.array([-1, 3], np.int64),
    "w": np.arange(6, dtype=np.float32).reshape(3, 2),
}


def test_a_tensordot_becomes_one_product():
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    for opset in (12, 17):
        model = model_of(tensordot(), CONSTANTS, opset, "y")
        merge_tensordots(model)
        remove_unused(model.graph)
        assert [node.op_type for node in model.graph.node] == ["MatMul"]
        assert [constant.name for constant in model.graph.initializer] == ["w"]
        np.testing.assert_allclose(run(model, x), x @ CONSTANTS["w"], rtol=1e-6)


def test_a_product_of_other_rank_stays():
    constants = {**CONSTANTS, "t": np.array([-1, 1, 1, 2], np.int64)}
    nodes = [node for node in tensordot() if node.name not in ("shape", "gather", "concat")]
    model = model_of(nodes, constants, 17, "y")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.shape.dim.extend(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4).type.tensor_type.shape.dim
    )
    merge_tensordots(model)
    assert [node.op_type for node in model.graph.node] == ["Reshape", "MatMul", "Reshape"]


def test_a_reshape_of_the_model_itself_stays():
    nodes = tensordot()
    nodes[-1].name = "a/Reshape_5"
    model = model_of(nodes, CONSTANTS, 17, "y")
    merge_tensordots(model)
    assert [node.op_type for node in model.graph.node][-3:] == ["Reshape", "MatMul", "Reshape"]


def test_pools_become_means_and_squares_powers():
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    for opset in (12, 17, 18):
        nodes = [
            helper.make_node("Mul", ["x", "x"], ["q"], "square"),
            helper.make_node("GlobalAveragePool", ["q"], ["y"], "pool"),
        ]
        model = model_of(nodes, {}, opset, "y")
        restore_norms(model)
        remove_unused(model.graph)
        assert [node.op_type for node in model.graph.node] == ["Pow", "ReduceMean"]
        np.testing.assert_allclose(run(model, x), (x * x).mean(axis=-1, keepdims=True), rtol=1e-6)
