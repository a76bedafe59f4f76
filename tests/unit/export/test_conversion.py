"""The graph itself: operator set, input, no operators that stand in the way of speed."""

from collections import Counter

import numpy as np
import onnx
import pytest

from mlpf.export import RUNTIMES, open_session
from mlpf.export.conversion import convert, order_names
from mlpf.export.graph_rewrites import keep_outputs
from mlpf.models.interface import concatenate_outputs
from tests.support.events import clic_like_events
from tests.support.models import LEARNED_PAIRS, tiny_model, tiny_transformer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

# The pairs that test_exporting leaves out.
CASES = {"graph": (tiny_model, "cmssw"), "transformer": (tiny_transformer, "onnxruntime")}


@pytest.fixture(scope="module", params=CASES)
def converted(request):
    build, name = CASES[request.param]
    model = build()
    # Weights as after a training; those of a fresh norm are 1 and 0, which the converter drops.
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.05 * rng.standard_normal(weight.shape))
    runtime = RUNTIMES[name]
    return model, runtime, convert(model, runtime, runtime.opset)


def test_opset_and_input_are_those_of_the_runtime(converted):
    _, runtime, graph = converted
    assert [o.version for o in graph.opset_import if o.domain == ""] == [runtime.opset]
    assert [value.name for value in graph.graph.input] == [runtime.input_name]


def test_shapes_are_free(converted):
    model, runtime, graph = converted
    session = open_session(graph.SerializeToString())
    for b, n in ((1, 7), (2, 16), (3, 50)):
        x = clic_like_events(b, n, seed=n)
        found = session.run(["particles"], {runtime.input_name: x})[0]
        # float32, with numbers of order 100
        np.testing.assert_allclose(found, concatenate_outputs(model(x)), atol=2e-3, rtol=1e-4)


def test_learned_pairs_take_events_of_less_than_a_bin():
    """onnxruntime refused the product of a matrix with no matrices: there is no full bin."""
    model = tiny_model(combined_graph_layer=LEARNED_PAIRS)
    graph = convert(model, RUNTIMES["onnxruntime"], RUNTIMES["onnxruntime"].opset)
    session = open_session(graph.SerializeToString())
    for n in (1, 7, model.bin_size, model.bin_size + 1):
        x = clic_like_events(2, n, seed=n)
        found = session.run(["particles"], {"x": x})[0]
        # float32, with numbers of order 100
        np.testing.assert_allclose(found, concatenate_outputs(model(x)), atol=2e-3, rtol=1e-4)


def test_each_graph_layer_tells_its_order(converted):
    model, runtime, graph = converted
    names = order_names(graph)
    assert len(names) == (2 if model.bin_size else 0)
    if names:
        x = clic_like_events(2, 20)
        for order in open_session(graph.SerializeToString()).run(names, {runtime.input_name: x}):
            np.testing.assert_array_equal(np.sort(order, axis=-1), np.tile(np.arange(20), (2, 1)))


def test_slow_forms_are_gone(converted):
    _, _, graph = converted
    counts = Counter(node.op_type for node in graph.graph.node)
    assert not {"Elu", "GlobalAveragePool", "Loop", "If", "GatherND"} & set(counts)
    assert counts["Where"] > 0


def test_norms_become_one_operator_in_onnxruntime(converted, tmp_path):
    _model, _, graph = converted
    optimised = tmp_path / "optimised.onnx"
    open_session(graph.SerializeToString(), save_as=optimised)
    counts = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    # The graph network has one in each layer and one in the heads, but the first ones of its two stacks share
    # their mean; the transformer has one in the heads, the others take no mean.
    assert counts["LayerNormalization"] == 1


def test_the_final_graph_has_one_output_and_nothing_unused(converted):
    _, _, graph = converted
    final = keep_outputs(graph, {"particles"}).graph
    assert [value.name for value in final.output] == ["particles"]
    used = {name for node in final.node for name in node.input} | {"particles"}
    assert {constant.name for constant in final.initializer} <= used
    assert all(used & set(node.output) for node in final.node)
