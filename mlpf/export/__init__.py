"""Export of a model to ONNX, checked against Keras with onnxruntime before it gets its name."""

from mlpf.export.exporting import ExportedFile, export_onnx
from mlpf.export.onnx_session import onnx_forward, open_session
from mlpf.export.parity import ParityReport
from mlpf.export.precision import PRECISIONS
from mlpf.export.runtimes import RUNTIMES, ExportError

__all__ = [
    "PRECISIONS",
    "RUNTIMES",
    "ExportError",
    "ExportedFile",
    "ParityReport",
    "export_onnx",
    "onnx_forward",
    "open_session",
]
