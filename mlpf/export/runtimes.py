"""Requirements of the programs that run an exported model."""

from dataclasses import dataclass

from mlpf.errors import MLPFError


class ExportError(MLPFError):
    """A model cannot be exported as requested, or its export gives other results than the original."""


@dataclass(frozen=True)
class Target:
    """Requirements of one program.

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
        """Return ``opset``, or the default of the target.

        Raises:
            ExportError: the target does not allow it.
        """
        if opset is None:
            return self.opset
        first, last = self.opsets
        if not first <= opset <= last:
            raise ExportError(
                f"--opset {opset}: target {self.name} takes {first} to {last}; leave it out for {self.opset}"
            )
        return opset


# 12 is the first one with all operators of the models, 18 the last one of the converter.
TARGETS = {
    target.name: target
    for target in (
        Target("onnxruntime", "x", 17, (12, 18)),
        # CMSSW addresses the input by the name that TensorFlow gives tensors.
        Target("cmssw", "x:0", 12, (12, 12)),
    )
}
OUTPUT_NAME = "particles"
