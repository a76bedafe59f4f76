import numpy as np
import pytest

from mlpf.export import TARGETS, onnx_forward, open_session
from mlpf.export.conversion import convert
from mlpf.models.interface import OUTPUT_NAMES, concatenate_outputs
from tests.support.events import clic_like_events
from tests.support.models import tiny_transformer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_outputs_have_the_names_of_the_model(target):
    model = tiny_transformer()
    forward = onnx_forward(open_session(convert(model, target, target.opset).SerializeToString()))
    for shape in ((1, 20), (2, 33)):
        X = clic_like_events(*shape)
        found, expected = forward(X), model(X)
        assert tuple(found) == OUTPUT_NAMES
        for name, values in found.items():
            # float32; momenta of the untrained network are of order 10
            np.testing.assert_allclose(values, expected[name], atol=1e-4, rtol=1e-4)
        joined = np.concatenate(list(found.values()), axis=-1)
        np.testing.assert_allclose(joined, concatenate_outputs(expected), atol=1e-4, rtol=1e-4)


def test_threads_are_those_asked_for():
    graph = convert(tiny_transformer(), TARGETS["onnxruntime"], 17).SerializeToString()
    options = open_session(graph, num_threads=1).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
