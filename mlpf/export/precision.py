"""The same network with other numbers inside: float16 and int8. Input and output stay float32."""

import logging
import re
import tempfile
from pathlib import Path

import keras
import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from mlpf.export.rewriting import remove_unused

PRECISIONS = ("float32", "float16", "int8")

# Products with weights that int8 leaves alone. The columns of an event (what these layers see) span from 1e-4 to
# thousands: one scale for all would erase most. The distance network decides bins.
_FLOAT_LAYERS = re.compile(r"/(node_encoding|embedding|ffn_dist|binning|output_decoding)(_\d+)?/")


def with_policy(model: keras.Model, policy: str) -> keras.Model:
    """Return a model of the same weights that computes under another Keras dtype policy."""
    if model.dtype_policy.name == policy:
        return model
    twin = type(model).from_config({**model.get_config(), "dtype": policy})
    twin.build((None, None, model.num_input_features))
    twin.set_weights(model.get_weights())
    return twin


def quantize(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose products with large constant matrices are made in int8.

    Weights are rounded once, per column; what they are multiplied with is rounded in each event, with one scale
    per tensor. Everything else, the choice of bins and kernels above all, stays float32.
    """
    constants = {constant.name for constant in proto.graph.initializer}
    nodes = [
        node.name
        for node in proto.graph.node
        if node.op_type == "MatMul" and node.input[1] in constants and not _FLOAT_LAYERS.search(node.name)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            proto,
            path,
            nodes_to_quantize=nodes,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)
