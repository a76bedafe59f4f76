"""Check that the numbers of a graph fit into float16.

Outputs do not always show a number that is too large for float16: messages are cut off, and on a CPU
onnxruntime computes float16 in float32. Therefore each float16 tensor of the graph is checked.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mlpf.export.onnx_session import open_session
from mlpf.export.runtimes import ExportError

FLOAT16_MAX = float(np.finfo(np.float16).max)
_FLAT, _ZERO = "watch_flat", "watch_zero"


def refuse_overflow(magnitudes: Mapping[str, float], name: str) -> None:
    """Refuse a graph whose numbers leave the range of float16, or are cut off at its end.

    Args:
        magnitudes: see ``float16_magnitudes``.
        name: file, for the message.

    Raises:
        ExportError: a number is out of range; names the first place in the graph and the number.
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
        # An empty tensor has no largest number.
        graph.node.append(helper.make_node("Concat", [steps[2], _ZERO], [steps[3]], axis=0))
        graph.node.append(helper.make_node("ReduceMax", [steps[3]], [_output(i)], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(_output(i), TensorProto.FLOAT, []))
    return watched
