"""Requirements of the programs that run an exported model."""

from dataclasses import dataclass

from mlpf.errors import MLPFError


class ExportError(MLPFError):
    """A model cannot be exported as requested, or its export gives other results than the original."""


@dataclass(frozen=True)
class Runtime:
    """What a framework takes.

    Attributes:
        name: name on the command line.
        input_name: name of the input tensor.
        opset: default ONNX operator set.
        opsets: first and last allowed operator set.
    """

    name: str
    input_name: str
    opset: int
    opsets: tuple[int, int]

    def choose_opset(self, opset: int | None) -> int:
        """Return ``opset``, or the usual one of the runtime.

        Raises:
            ExportError: the runtime does not take it.
        """
        if opset is None:
            return self.opset
        first, last = self.opsets
        if not first <= opset <= last:
            raise ExportError(
                f"--opset {opset}: target {self.name} takes {first} to {last}; leave it out for {self.opset}"
            )
        return opset


# 12 is the first with what the models need, 18 the last of the converter.
RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("onnxruntime", "x", 17, (12, 18)),
        # CMSSW addresses the input by the name that TensorFlow gives tensors.
        Runtime("cmssw", "x:0", 12, (12, 12)),
    )
}
OUTPUT_NAME = "particles"
