"""Arithmetic of int8 products on processors without VNNI, the same on every machine."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata


def saturating_product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return uint8 [N, K] times int8 [K, M], K even, as x86 processors without VNNI do.

    Products of inputs 2 k and 2 k + 1 are added in 16 bits, where the sum saturates; pairs in 32 bits.
    """
    pairs = x.reshape(len(x), -1, 2).astype(np.int64)
    weights = weight.reshape(-1, 2, weight.shape[-1]).astype(np.int64)
    sums = np.einsum("npi,pim->npm", pairs, weights)
    return np.clip(sums, -(2**15), 2**15 - 1).sum(axis=1)


def products(proto: onnx.ModelProto) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the int8 weights [K, M] of each integer product, and inputs uint8 [2 M, K] that load them most.

    For each column: 255 where its weights are positive and 0 elsewhere, and the other way round.
    """
    constants = {constant.name: constant for constant in proto.graph.initializer}
    weights = [
        onnx.numpy_helper.to_array(constants[node.input[1]])
        for node in proto.graph.node
        if node.op_type == "MatMulInteger"
    ]
    return [(w, np.where(np.concatenate([w > 0, w < 0], axis=1).T, 255, 0).astype(np.uint8)) for w in weights]


def quantize_with(proto: onnx.ModelProto, weight_type: QuantType) -> onnx.ModelProto:
    """Return a graph whose products have weights of all 8 bits, one scale per column."""
    source = onnx.ModelProto()
    source.CopyFrom(proto)
    add_pre_process_metadata(source)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=weight_type,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)
