"""The same network with float16 or int8 numbers inside. Input and output stay float32."""

import re
import tempfile
from pathlib import Path

import keras
import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from mlpf.export.runtimes import ExportError

PRECISIONS = ("float32", "float16", "int8")

# x86 processors without VNNI multiply unsigned inputs (0 to 255) by signed weights in pairs and add each pair
# in 16 bits, where the sum saturates. With weights up to this (64, 7 bits) no pair saturates.
LARGEST_INT8_WEIGHT = (2**15 - 1) // (2 * 255)

# Products that do not become int8: of the columns of an event, which range from 1e-4 to thousands, so that
# one scale would erase most of them; those that decide bins; pair kernels and features of the attention,
# which are exponents; and the heads, which are small.
_FLOAT_LAYERS = re.compile(
    r"/(node_encoding|embedding|ffn_dist|binning|kernel|output_decoding)(_\d+)?/|/attention(_\d+)?/Tensordot"
)


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

    Weights are rounded once, to 7 bits with one scale per column (see ``refuse_saturation``). Their inputs
    are rounded in each batch, to 8 bits with one scale. Everything else stays float32, in particular the
    choice of bins and kernels.
    """
    source = onnx.ModelProto()
    source.CopyFrom(proto)
    add_pre_process_metadata(source)  # suppresses a warning; there is nothing to prepare
    constants = {constant.name for constant in source.graph.initializer}
    excluded = [  # not the nodes to convert: an empty list of these would mean all
        node.name
        for node in source.graph.node
        if node.op_type == "MatMul" and (node.input[1] not in constants or _FLOAT_LAYERS.search(node.name))
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            source,
            path,
            nodes_to_exclude=excluded,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)


def largest_int8_weight(proto: onnx.ModelProto) -> int | None:
    """Return the largest absolute value of all int8 constants; None = there are none."""
    constants = [
        onnx.numpy_helper.to_array(constant).astype(np.int16)  # the absolute value of -128 is 128
        for constant in proto.graph.initializer
        if constant.data_type == onnx.TensorProto.INT8
    ]
    return max((int(np.abs(values).max(initial=0)) for values in constants), default=None)


def refuse_saturation(proto: onnx.ModelProto, name: str) -> None:
    """Refuse a graph whose int8 products are right only on processors with VNNI.

    Unsigned weights (uint8) are allowed: onnxruntime adds their products in 32 bits on every processor.

    Args:
        proto: a graph of any precision.
        name: file, for the message.

    Raises:
        ExportError: ``largest_int8_weight`` is beyond ``LARGEST_INT8_WEIGHT``.
    """
    largest = largest_int8_weight(proto) or 0
    if largest > LARGEST_INT8_WEIGHT:
        raise ExportError(
            f"{name}: int8 weights reach {largest}, allowed {LARGEST_INT8_WEIGHT}: their products saturate "
            "on processors without VNNI; no file was written, install the onnxruntime of requirements.txt "
            "or leave int8 out"
        )
