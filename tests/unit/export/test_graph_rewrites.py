import numpy as np
import onnx
import pytest
import scipy.special
import tensorflow as tf
import tf2onnx
from onnx import TensorProto, helper, numpy_helper

from mlpf.export import open_session
from mlpf.export.graph_rewrites import (
    HANDLERS,
    expand_left_factors,
    remove_unused,
    restore_norms,
    shape_reductions,
)


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the converter
def test_erfc_is_written_with_erf():
    signature = [tf.TensorSpec((None, None, 3), tf.float32, name="x")]
    function = tf.function(lambda x: {"y": tf.math.erfc(x)}, input_signature=signature)
    model, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=12, custom_op_handlers=HANDLERS
    )
    assert {"Erf", "Sub"} <= {node.op_type for node in model.graph.node}
    x = np.linspace(-6, 6, 300, dtype=np.float32).reshape(2, 50, 3)
    # erf is near 1, where neighbouring float32 are 6e-8 apart; a few of them for the function itself.
    np.testing.assert_allclose(run(model, x), scipy.special.erfc(x.astype(float)), rtol=0, atol=2.5e-7)


def test_squares_become_powers():
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["q"], "square"),
        helper.make_node("ReduceMean", ["q"], ["y"], "mean", axes=[-1], keepdims=1),
    ]
    model = model_of(nodes, {}, 17, "y")
    restore_norms(model)
    remove_unused(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Pow", "ReduceMean"]
    np.testing.assert_allclose(run(model, x), (x * x).mean(axis=-1, keepdims=True), rtol=1e-6)


def test_what_no_output_needs_is_removed():
    nodes = [
        helper.make_node("Abs", ["x"], ["y"], "abs"),
        helper.make_node("Add", ["x", "one"], ["z"], "add"),
    ]
    model = model_of(nodes, {"one": np.float32(1)}, 17, "y")
    remove_unused(model.graph)
    assert [node.name for node in model.graph.node] == ["abs"]
    assert len(model.graph.initializer) == 0


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize(("operator", "reduce"), [("ReduceSum", np.sum), ("ReduceMax", np.max)])
@pytest.mark.parametrize(("axis", "keepdims"), [(-1, 0), (1, 0), (-2, 0), (-1, 1)])
def test_reductions_of_nothing_have_the_right_shape(opset, operator, reduce, axis, keepdims):
    """onnxruntime itself leaves (0, 3, 4) as it is."""
    shapes = {"x": ["G", 3, 4], "y": [None] * (2 + keepdims)}
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    constants = []
    if operator == "ReduceSum" and opset > 12:
        node = helper.make_node(operator, ["x", "axes"], ["y"], "reduce", keepdims=keepdims)
        constants.append(numpy_helper.from_array(np.array([axis], np.int64), "axes"))
    else:
        node = helper.make_node(operator, ["x"], ["y"], "reduce", keepdims=keepdims, axes=[axis])
    graph = helper.make_graph([node], "test", sides[:1], sides[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    shape_reductions(model)
    onnx.checker.check_model(model)
    for groups in (0, 1, 5):
        x = np.random.default_rng(groups).normal(size=(groups, 3, 4)).astype(np.float32)
        found = run(model, x)
        assert found.shape == reduce(x, axis=axis, keepdims=bool(keepdims)).shape
        np.testing.assert_allclose(found, reduce(x, axis=axis, keepdims=bool(keepdims)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stack", [("G",), ("G", 2)])
def test_a_matrix_times_a_stack_of_none(stack):
    """onnxruntime itself refuses it."""
    shapes = {"x": [*stack, 3, 4], "y": [*stack, 2, 4]}
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    node = helper.make_node("MatMul", ["matrix", "x"], ["y"], "product")
    constants = [numpy_helper.from_array(matrix, "matrix")]
    graph = helper.make_graph([node], "test", sides[:1], sides[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=7)
    expand_left_factors(model)
    onnx.checker.check_model(model)
    for groups in (0, 1, 5):
        x = np.random.default_rng(groups).normal(size=(groups, *stack[1:], 3, 4)).astype(np.float32)
        found = run(model, x)
        assert found.shape == (groups, *stack[1:], 2, 4)
        # sums of three float32 products below 20
        np.testing.assert_allclose(found, matrix @ x, rtol=0, atol=1e-5)


def test_a_matrix_right_of_a_stack_stays():
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["y"], "product")]
    model = model_of(nodes, {"matrix": np.ones((3, 2), np.float32)}, 17, "y")
    expand_left_factors(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert run(model, np.ones((0, 4, 3), np.float32)).shape == (0, 4, 2)
