"""Changes of an ONNX graph that leave its results as they are and make it smaller and faster."""

from typing import Any

import numpy as np
import onnx

TWO = "two"


def where(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001 - the converter's signature
    """Convert a choice between tensors to Where.

    The converter multiplies by 0 and 1 instead, and 0 times NaN is NaN: one bad number in the input would
    spoil the event, which the models promise it does not.
    """
    node.type = "Where"


def elu(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001 - the converter's signature
    """Write elu as max(x, exp(min(x, 0)) - 1): three times faster in onnxruntime than its own Elu."""
    x, result = node.input[0], node.output[0]
    dtype, shape = ctx.get_dtype(result), ctx.get_shape(result)
    number = onnx.helper.tensor_dtype_to_np_dtype(dtype)
    zero = ctx.make_const(f"{name}/zero", np.array(0.0, number)).output[0]
    one = ctx.make_const(f"{name}/one", np.array(1.0, number)).output[0]
    ctx.remove_node(node.name)
    below = ctx.make_node("Min", [x, zero], name=f"{name}/below").output[0]
    power = ctx.make_node("Exp", [below], name=f"{name}/exp").output[0]
    shifted = ctx.make_node("Sub", [power, one], name=f"{name}/shifted").output[0]
    ctx.make_node("Max", [x, shifted], outputs=[result], name=name, dtypes=[dtype], shapes=[shape])


def erfc(ctx: Any, node: Any, name: str, args: Any) -> None:  # noqa: ARG001 - the converter's signature
    """Write erfc as 1 - erf(x): ONNX has no Erfc, and TensorFlow 2.20 makes gelu of it.

    In float32 the difference to erfc is below 2e-7, and in gelu it is multiplied by half the input.
    """
    x, result = node.input[0], node.output[0]
    dtype, shape = ctx.get_dtype(result), ctx.get_shape(result)
    one = np.array(1.0, onnx.helper.tensor_dtype_to_np_dtype(dtype))
    ctx.remove_node(node.name)
    constant = ctx.make_const(f"{name}/one", one).output[0]
    erf = ctx.make_node("Erf", [x], name=f"{name}/erf").output[0]
    ctx.make_node("Sub", [constant, erf], outputs=[result], name=name, dtypes=[dtype], shapes=[shape])


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "SelectV2": (where, []),
    "Elu": (elu, []),
    "Erfc": (erfc, []),
}


def restore_norms(model: onnx.ModelProto) -> None:
    """Write normalisations in the steps that onnxruntime makes one operator of: squares as powers again."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        square = producers.get(node.input[0]) if node.op_type == "ReduceMean" else None
        if square is not None and square.op_type == "Mul" and square.input[0] == square.input[1]:
            square.op_type = "Pow"
            square.input[1] = TWO
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(2.0, np.float32), TWO))


def remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):  # nodes come in the order in which they run
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for constant in list(graph.initializer):
        if constant.name not in needed:
            graph.initializer.remove(constant)


def keep_outputs(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """Return a copy with these outputs only."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for value in list(result.graph.output):
        if value.name not in names:
            result.graph.output.remove(value)
    remove_unused(result.graph)
    return result
