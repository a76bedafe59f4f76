import pytest

from mlpf.export import RUNTIMES, ExportError


def test_each_runtime_has_its_opset_and_input():
    assert {name: (t.input_name, t.choose_opset(None)) for name, t in RUNTIMES.items()} == {
        "onnxruntime": ("x", 17),
        "cmssw": ("x:0", 12),
    }
    assert RUNTIMES["onnxruntime"].choose_opset(15) == 15
    assert RUNTIMES["cmssw"].choose_opset(12) == 12


@pytest.mark.parametrize(
    ("name", "opset", "range_"),
    [("cmssw", 17, "12 to 12"), ("onnxruntime", 19, "12 to 18"), ("cmssw", 1, "12")],
)
def test_an_opset_that_the_runtime_does_not_take_is_refused(name, opset, range_):
    with pytest.raises(ExportError, match=rf"--opset {opset}: target {name} takes {range_}.*; leave it out"):
        RUNTIMES[name].choose_opset(opset)
