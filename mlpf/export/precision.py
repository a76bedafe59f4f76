"""The same network with float16 or int8 numbers inside. Input and output stay float32.

The outputs do not always show a number beyond the range of float16: messages are cut off, and on a CPU
onnxruntime computes float16 in float32. Therefore every float16 tensor of the graph is checked.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from mlpf.export.onnx_session import open_session
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


FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLAT, _ZERO = "watch_flat", "watch_zero"


def refuse_overflow(magnitudes: Mapping[str, float], name: str) -> None:
    """Refuse a graph whose numbers leave the range of float16, or are cut off at its end.

    Args:
        magnitudes: see ``float16_magnitudes``.
        name: file, for the message.

    Raises:
        ExportError: with the first place in the graph and the size of its number.
    """
    for place, largest in magnitudes.items():
        if not largest < FLOAT16_MAX:  # so that NaN fails
            raise ExportError(
                f"{name}: float16 ends at {FLOAT16_MAX:.0f}, but numbers in {place} reach {largest:.3g}; no "
                "file was written, leave this precision out, or train with parameters.use_normalizer: true "
                "and, in the graph network, combined_graph_layer.layernorm: true and fewer num_node_messages"
            )


def float16_magnitudes(
    proto: onnx.ModelProto, batches: Sequence[npt.NDArray[np.float32]]
) -> dict[str, float]:
    """Return the largest absolute value of each float16 tensor, by name, in the order of the graph.

    Args:
        proto: the graph.
        batches: [B, N, F] each, its inputs.
    """
    found = {
        constant.name: float(np.abs(numpy_helper.to_array(constant).astype(np.float32)).max(initial=0.0))
        for constant in proto.graph.initializer
        if constant.data_type == TensorProto.FLOAT16
    }
    names = _float16_tensors(proto)
    if names:
        session = open_session(_watched(proto, names).SerializeToString())
        input_name = session.get_inputs()[0].name
        for batch in batches:
            largest = session.run([_output(i) for i in range(len(names))], {input_name: batch})
            for name, value in zip(names, largest, strict=True):
                found[name] = float(np.maximum(found.get(name, 0.0), value))  # NaN stays
    return found


def _float16_tensors(proto: onnx.ModelProto) -> list[str]:
    typed = onnx.shape_inference.infer_shapes(proto).graph
    half = {v.name for v in typed.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return [name for node in proto.graph.node for name in node.output if name in half]


def _output(number: int) -> str:
    return f"watch_{number}"


def _watched(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the graph with the largest absolute value of each of ``names`` as its only outputs."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    graph = watched.graph
    del graph.output[:]
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), _FLAT))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), _ZERO))
    for i, name in enumerate(names):
        steps = [f"{_output(i)}_{step}" for step in ("float32", "absolute", "flat", "not_empty")]
        graph.node.append(helper.make_node("Cast", [name], [steps[0]], to=TensorProto.FLOAT))
        graph.node.append(helper.make_node("Abs", [steps[0]], [steps[1]]))
        graph.node.append(helper.make_node("Reshape", [steps[1], _FLAT], [steps[2]]))
        # A tensor may be empty, and nothing has no largest number.
        graph.node.append(helper.make_node("Concat", [steps[2], _ZERO], [steps[3]], axis=0))
        graph.node.append(helper.make_node("ReduceMax", [steps[3]], [_output(i)], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(_output(i), TensorProto.FLOAT, []))
    return watched
