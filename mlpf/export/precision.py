"""The same network with other numbers inside: float16 and int8. Input and output stay float32."""

import re
import tempfile
from pathlib import Path

import keras
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

PRECISIONS = ("float32", "float16", "int8")

# Products with weights that int8 leaves alone: what sees the columns of an event, which span from 1e-4 to
# thousands, so that one scale for all would erase most; what decides bins; pair kernels and the features of
# the attention, which go into exponentials; and the heads, which are small.
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

    Weights are rounded once, with one scale per column; what they are multiplied with is rounded in each
    batch, with one scale. Everything else, the choice of bins and kernels above all, stays float32.
    """
    source = onnx.ModelProto()
    source.CopyFrom(proto)
    add_pre_process_metadata(source)  # there is nothing to prepare: no warning, please
    constants = {constant.name for constant in source.graph.initializer}
    excluded = [  # and not those to take: an empty list of those would mean all
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
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)
