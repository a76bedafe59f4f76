"""From Keras to an ONNX graph."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import onnx
import tensorflow as tf
import tf2onnx

from mlpf.export.graph_rewrites import (
    HANDLERS,
    expand_left_factors,
    remove_unused,
    restore_norms,
    shape_reductions,
)
from mlpf.export.runtimes import OUTPUT_NAME, Runtime
from mlpf.export.tracing import plain_norms, recorded_orders
from mlpf.models.interface import concatenate_outputs, output_widths

# Further outputs of the graph for the check: the order of the elements in each graph layer.
ORDER_NAME = "order_{}"


def convert(model: keras.Model, runtime: Runtime, opset: int) -> onnx.ModelProto:
    """Convert a model of X [B, N, F]; B and N are dynamic.

    Args:
        model: Keras model under any dtype policy.
        runtime: gives the name of the input.
        opset: ONNX operator set.

    Returns:
        A graph with the output ``particles`` [B, N, C + 8] float32, and ``order_<i>`` [B, N] int32 for
        each graph layer.
    """
    num_features = int(model.num_input_features)
    signature = [tf.TensorSpec((None, None, num_features), tf.float32, name="x")]

    @tf.function(input_signature=signature)
    def predict(x):
        with plain_norms(model), recorded_orders(model) as orders:
            particles = concatenate_outputs(model(x, training=False))
        return {OUTPUT_NAME: particles, **{ORDER_NAME.format(i): order for i, order in enumerate(orders)}}

    with _quiet():
        proto, _ = tf2onnx.convert.from_function(
            predict, input_signature=signature, opset=opset, custom_op_handlers=HANDLERS
        )
    restore_norms(proto)
    shape_reductions(proto)
    expand_left_factors(proto)
    remove_unused(proto.graph)
    _rename_input(proto.graph, runtime.input_name)
    _name_axes(proto.graph.input[0], ("B", "N", num_features))
    for output in proto.graph.output:
        if output.name == OUTPUT_NAME:
            _name_axes(output, ("B", "N", sum(output_widths(model.num_output_classes).values())))
    onnx.checker.check_model(proto)
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress a warning of the converter for each float16 product that it does not change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def order_names(proto: onnx.ModelProto) -> list[str]:
    """Return the outputs that hold the order of the elements, by graph layer."""
    names = {value.name for value in proto.graph.output} - {OUTPUT_NAME}
    return [ORDER_NAME.format(i) for i in range(len(names))]


def _rename_input(graph: onnx.GraphProto, name: str) -> None:
    old = graph.input[0].name
    graph.input[0].name = name
    for node in graph.node:
        for i, given in enumerate(node.input):
            if given == old:
                node.input[i] = name


def _name_axes(value: onnx.ValueInfoProto, axes: Sequence[str | int]) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in axes:
        dim = shape.dim.add()
        if isinstance(axis, int):
            dim.dim_value = axis
        else:
            dim.dim_param = axis
