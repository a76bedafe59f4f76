"""onnxruntime: open a graph with a number of threads, and its forward pass."""

from pathlib import Path

import onnxruntime

from mlpf.export.runtimes import OUTPUT_NAME
from mlpf.forward import Forward
from mlpf.models.interface import output_slices


def open_session(
    model: bytes | str, num_threads: int | None = None, save_as: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU.

    Args:
        model: the graph, or the name of its file.
        num_threads: default all cores.
        save_as: file for the graph after the optimisations of onnxruntime.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if num_threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = num_threads
    if save_as is not None:
        options.optimized_model_filepath = str(save_as)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_forward(session: onnxruntime.InferenceSession) -> Forward:
    """Return the forward pass of an exported graph; its outputs are views of one array [B, N, C + 8]."""
    input_name = session.get_inputs()[0].name
    (width,) = (output.shape[-1] for output in session.get_outputs() if output.name == OUTPUT_NAME)
    places = output_slices(width)

    def forward(X):
        (particles,) = session.run([OUTPUT_NAME], {input_name: X})
        return {name: particles[..., place] for name, place in places.items()}

    return forward
