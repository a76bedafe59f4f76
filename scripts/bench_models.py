"""Speed and memory of the models, as ratios of passes that alternate in one process, on one thread.

Usage: scripts/bench_models.py [--only SECTION ...] [--rounds N] [--output FILE.json]
"""

import argparse
import functools
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from mlpf.config.loading import load_config
from mlpf.config.schema import Config
from mlpf.evaluation.latency import measure, scaling_exponents
from mlpf.forward import graph_forward, xla_forward
from mlpf.machine import session as runtime
from mlpf.models.interface import OUTPUT_NAMES, element_mask
from mlpf.physics.features import TARGETS
from mlpf.physics.random_events import sample_events
from mlpf.runs.trained import build_network
from mlpf.training.losses.total import MLPFLoss

ROOT = Path(__file__).resolve().parent.parent

# What the graph network of clic.yaml computes for 2,560 elements.
GNN_GFLOP, GNN_ELEMENTS = 38.6, 2560
RATE_SHAPE = (2560, 256, 256)
SCALING = (1024, 2560, 5120, 10240, 25600)
MEMORY = (17152, 34304, 51200)
# Everything as wide as the graph network of clic.yaml, and as deep: 12 blocks, heads of 256 / 8.
EQUAL_TRANSFORMER = {
    "parameters.block.ffn_dim": 256,
    "parameters.input_encoding": "clic",
    "parameters.use_normalizer": False,
}

Pass = Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """One ratio with what it should reach (``at_most`` or at least)."""

    what: str
    value: float
    target: float | None = None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """Return whether the target is met, in words."""
        if self.target is None:
            return ""
        met = self.value <= self.target if self.at_most else self.value >= self.target
        return f"{'at most' if self.at_most else 'at least'} {self.target:g}: {'yes' if met else 'no'}"


def config_of(name: str, **overrides: Any) -> Config:
    """Read a shipped configuration."""
    return load_config(ROOT / "parameters" / f"{name}.yaml").with_overrides(overrides)


def network(config: Config, policy: str = "float32") -> keras.Model:
    """Build the network of a configuration under a dtype policy, with the same weights each time."""
    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy)
    try:
        return build_network(config)
    finally:
        keras.config.set_dtype_policy("float32")


def straightforward(model: keras.Model) -> keras.Model:
    """Return the same network, with the same weights, in the obvious form."""
    sys.path.insert(0, str(ROOT))
    from tests.support.straightforward import StraightforwardNetwork

    copy = StraightforwardNetwork.from_config(model.get_config())
    copy.build((None, None, model.num_input_features))
    copy.set_weights(model.get_weights())
    return copy


def training_step(config: Config, model: keras.Model, jit_compile: bool = False) -> Pass:
    """Return a step (forward, loss, gradients, Adam) as one graph of open axes (not with XLA)."""
    loss, optimizer = MLPFLoss(config.loss), keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)
    spec = (tf.TensorSpec((None, None, model.num_input_features)), tf.TensorSpec((None, None, len(TARGETS))))

    @tf.function(
        autograph=False, jit_compile=jit_compile, **({} if jit_compile else {"input_signature": spec})
    )
    def step(x, y):
        with tf.GradientTape() as tape:
            sums = loss.sums(x, y, model(x, training=True), training=True)
            total = loss.total(sums.values, sums.weights)
        variables = model.trainable_variables
        gradients = tape.gradient(total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        optimizer.apply(gradients)
        return total

    def run(x: Any) -> Any:
        return step(tf.constant(x), tf.constant(targets_of(x))).numpy()

    return run


def targets_of(x: np.ndarray) -> np.ndarray:
    """Return targets [B, N, 8] of elements [B, N, F]: each one a hadron with the momentum measured."""
    y = np.zeros((*x.shape[:2], len(TARGETS)), np.float32)
    y[..., TARGETS.index("cls")] = x[..., 0]
    for place, name in enumerate(("pt", "eta", "sin_phi", "cos_phi", "energy"), start=1):
        y[..., TARGETS.index(name)] = x[..., place]
    return y


def matmul(dtype: str) -> Pass:
    """Return the product whose rate is the floor."""
    m, k, n = RATE_SHAPE
    rng = np.random.default_rng(0)
    a, b = (tf.cast(rng.normal(size=shape), dtype) for shape in ((m, k), (k, n)))
    product = tf.function(lambda a, b: tf.matmul(a, b))
    return lambda _: [product(a, b) for _ in range(MATMULS)][-1].numpy()


MATMULS = 20


def medians(engines: dict[str, Pass], events: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each, from passes that alternate."""
    return {found.engine: found.p50_ms for found in measure(engines, events, rounds)}


def events_of(config: Config, num_events: int, num_elements: int) -> np.ndarray:
    """Return random events of a configuration's schema."""
    section = config.dataset
    return sample_events(section.event_schema, num_events, num_elements, section.detector)


def floor(rounds: int) -> Iterator[Row]:
    """Forward pass of clic.yaml against the rate of matrix products, float32 and bfloat16."""
    config = config_of("clic")
    events = events_of(config, 1, GNN_ELEMENTS)
    models = {policy: network(config, policy) for policy in ("float32", "mixed_bfloat16")}
    engines = {name: graph_forward(model) for name, model in models.items()}
    products = {"matmul float32": matmul("float32"), "matmul bfloat16": matmul("bfloat16")}
    ms = medians({**engines, **products}, events, rounds)
    gflop = 2e-9 * np.prod(RATE_SHAPE) * MATMULS
    rates = {name: gflop / ms[name] * 1e3 for name in products}
    reached = GNN_GFLOP / ms["float32"] * 1e3
    yield Row("rate of 256-wide products, float32 [GFLOP/s]", rates["matmul float32"])
    yield Row("rate of 256-wide products, bfloat16 [GFLOP/s]", rates["matmul bfloat16"])
    yield Row("clic.yaml forward, N = 2560 [ms]", ms["float32"])
    yield Row("clic.yaml forward, share of that rate", reached / rates["matmul float32"], 0.8)
    yield Row("bfloat16 against float32, speed", ms["float32"] / ms["mixed_bfloat16"], 1.35)
    # One bin: with more, an element that rounding moves to another bin is another function.
    small = events_of(config, 8, 256)
    full, half = (models[policy](small, training=False) for policy in models)
    real = np.asarray(element_mask(small))
    same = np.argmax(full["cls"], axis=-1) == np.argmax(half["cls"], axis=-1)
    yield Row("bfloat16: share of elements with the same class, one bin", float(same[real].mean()))
    for name in OUTPUT_NAMES:
        # In units of what the output varies by: with random weights, momenta are of any size.
        expected, found = (np.asarray(outputs[name])[real] for outputs in (full, half))
        share = np.sqrt(np.mean((found - expected) ** 2)) / np.std(expected)
        yield Row(f"bfloat16: rms difference of {name} in standard deviations, one bin", float(share))


def train(rounds: int) -> Iterator[Row]:
    """Training step of clic.yaml against its forward pass."""
    config = config_of("clic")
    events = events_of(config, 8, 256)
    model = network(config)
    ms = medians({"step": training_step(config, model), "forward": graph_forward(model)}, events, rounds)
    yield Row("clic.yaml step, 8 x 256 [ms]", ms["step"])
    yield Row("clic.yaml step against its forward pass", ms["step"] / ms["forward"], 3.3, at_most=True)


def formats(rounds: int) -> Iterator[Row]:
    """Every number format, and XLA, against float32 in a graph."""
    for name, what, shape in (
        ("clic", "forward", (1, 2560)),
        ("clic", "step", (8, 256)),
        ("clic-demo", "step", (8, 256)),
    ):
        config = config_of(name)
        engines = {}
        for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
            model = network(config, policy)
            make, compiled = graph_forward, xla_forward
            if what == "step":
                make = functools.partial(training_step, config)
                compiled = functools.partial(make, jit_compile=True)
            engines[policy] = make(model)
            if policy == "float32":
                engines["float32, XLA"] = compiled(model)
        ms = medians(engines, events_of(config, *shape), rounds)
        yield Row(f"{name}.yaml {what} {shape[0]} x {shape[1]}, float32 [ms]", ms["float32"])
        for engine in (e for e in engines if e != "float32"):
            yield Row(f"{name}.yaml {what}, {engine}: speed against float32", ms["float32"] / ms[engine])


def demo(rounds: int) -> Iterator[Row]:
    """Compare clic-demo.yaml with the obvious version of the same network."""
    config = config_of("clic-demo")
    ours = network(config)
    theirs = straightforward(ours)
    for what, shape, make in (
        ("forward, 1 x 256", (1, 256), graph_forward),
        ("forward, 1 x 2560", (1, 2560), graph_forward),
        ("step, 8 x 256", (8, 256), functools.partial(training_step, config)),
    ):
        engines = {"ours": make(ours), "obvious": make(theirs)}
        ms = medians(engines, events_of(config, *shape), 4 * rounds)
        target = None if shape[1] > 256 else 1.3
        yield Row(f"clic-demo.yaml {what} [ms]", ms["ours"])
        gain = ms["obvious"] / ms["ours"]
        yield Row(f"clic-demo.yaml {what}, against the obvious version", gain, target)


def losses(rounds: int) -> Iterator[Row]:
    """Training step of clic-demo.yaml with each loss of whole events against none."""
    config = config_of("clic-demo")
    model = network(config)
    terms = list(config.loss.event_loss.coefficients)
    coefficients = {"none": {}, "none, again": {}} | {name: {name: 1.0} for name in terms}
    engines = {
        what: training_step(
            config.with_overrides({f"loss.event_loss.{n}.coef": c for n, c in on.items()}), model
        )
        for what, on in coefficients.items()
    }
    ms = medians(engines, events_of(config, 16, 256), 2 * rounds)
    plain = ms.pop("none")
    yield Row("clic-demo.yaml step, 16 x 256 [ms]", plain)
    for what, value in ms.items():
        yield Row(f"clic-demo.yaml step, {what} against none", value / plain)


def small(rounds: int) -> Iterator[Row]:
    """Events of half a bin against a full one."""
    config = config_of("clic")
    engine = {"gnn": graph_forward(network(config))}
    ms = {n: medians(engine, events_of(config, 1, n), rounds)["gnn"] for n in (256, 128, 256, 128)}
    yield Row("clic.yaml, N = 128 against N = 256", ms[128] / ms[256], 0.6, at_most=True)


def performer(rounds: int) -> Iterator[Row]:
    """The transformer against the graph network of equal width and depth."""
    gnn, transformer = config_of("clic"), config_of("clic-transformer", **EQUAL_TRANSFORMER)
    engines = {"gnn": graph_forward(network(gnn)), "transformer": graph_forward(network(transformer))}
    ms = medians(engines, events_of(gnn, 1, GNN_ELEMENTS), rounds)
    yield Row("transformer, N = 2560 [ms]", ms["transformer"])
    yield Row("transformer against graph network, N = 2560", ms["transformer"] / ms["gnn"], 1.0, at_most=True)


def scaling(rounds: int) -> Iterator[Row]:
    """Time against the number of elements, and graphs traced."""
    for name in ("clic", "clic-transformer"):
        model = network(config_of(name))
        num_graphs = 0

        def counted(x, training, call=model.call):
            nonlocal num_graphs
            num_graphs += 1
            return call(x, training=training)

        model.call = counted
        forward = graph_forward(model)
        # Every length is an engine of its own, so that the passes of all lengths alternate.
        engines = {
            str(n): functools.partial(lambda x, _, f: f(x), events_of(config_of(name), 1, n), f=forward)
            for n in SCALING
        }
        found = measure(engines, events_of(config_of(name), 1, 1), max(4, rounds // 2))
        found = [replace(x, engine=name, num_elements=int(x.engine)) for x in found]
        for x in found:
            yield Row(f"{name}.yaml, N = {x.num_elements} [ms]", x.p50_ms)
        exponent = scaling_exponents(found)[name, 1]
        yield Row(f"{name}.yaml, exponent of time, 1024 to 25600", exponent, 1.05, at_most=True)
        yield Row(f"{name}.yaml, graphs for {len(SCALING)} lengths", num_graphs, 1, at_most=True)


def memory(rounds: int) -> Iterator[Row]:  # noqa: ARG001 (a peak needs one pass)
    """Memory of the process against the number of elements; below, TensorFlow itself is most of it."""
    for name in ("clic", "clic-transformer"):
        # A process of its own for each: what one leaves behind would hide what the other needs.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks = pool.apply(_memory_of, (name,))
        for n, peak in zip(MEMORY, peaks, strict=True):
            yield Row(f"{name}.yaml, N = {n}, process [MB]", peak)
        steps = 1e3 * np.diff(peaks) / np.diff(MEMORY)
        yield Row(f"{name}.yaml, memory per 1000 elements [MB]", steps[0])
        yield Row(f"{name}.yaml, the same for the second half, ratio", steps[1] / steps[0], 1.1, at_most=True)


def _memory_of(name: str) -> list[float]:
    """Return the peak memory of this process in MB at each of ``MEMORY``."""
    runtime.set_threads(1)
    config = config_of(name)
    forward = {name: graph_forward(network(config))}
    found = [x for n in MEMORY for x in measure(forward, events_of(config, 1, n), 1)]
    return [x.peak_memory_mb or 0.0 for x in found]


def onnx(rounds: int) -> Iterator[Row]:
    """ONNX files of every precision: differences from Keras and speed, weights random."""
    from mlpf.export import PRECISIONS, export_onnx, onnx_forward, open_session

    for name in ("clic-demo", "clic", "clic-transformer"):
        config = config_of(name)
        model = network(config)
        engines = {"keras": graph_forward(model)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            section = config.dataset
            files = export_onnx(
                model,
                path,
                precisions=PRECISIONS,
                schema=section.event_schema,
                detector=section.detector,
            )
            for precision, file in files.items():
                engines[precision] = onnx_forward(open_session(str(file.path), 1))
        for precision, file in files.items():
            what, limit = f"{name}.yaml {precision}", 1e-4 if precision == "float32" else None
            shown = file.parity.outputs.values()
            yield Row(f"{what}: size [MB]", file.num_bytes / 1e6)
            yield Row(f"{what}: largest difference", max(x["largest"] for x in shown), limit, at_most=True)
            yield Row(f"{what}: 99th percentile", max(x["percentile_99"] for x in shown))
            yield Row(f"{what}: share of unstable elements", file.parity.unstable_share)
            yield Row(f"{what}: share of class flips", file.parity.class_flip_share)
        for n in (128, 256, 512, 2560):
            ms = medians(engines, events_of(config, 1, n), rounds)
            for precision in files:
                target = 1.0 if precision == "float32" and n <= 512 else None
                yield Row(
                    f"{name}.yaml {precision}, N = {n}, speed against Keras",
                    ms["keras"] / ms[precision],
                    target,
                )
                if precision != "float32":
                    ratio = ms["float32"] / ms[precision]
                    yield Row(f"{name}.yaml {precision}, N = {n}, speed against float32", ratio)


SECTIONS = {
    f.__name__: f for f in (floor, train, formats, demo, losses, small, performer, scaling, memory, onnx)
}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=20, help="timed passes of each")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    runtime.set_threads(1)
    console = Console()
    table = Table("what", "value", "target", title="models, one thread")
    rows = []
    for name in options.only:
        with console.status(name):
            for row in SECTIONS[name](options.rounds):
                rows.append(row)
                table.add_row(row.what, f"{row.value:.4g}", row.verdict)
    console.print(table)
    if options.output:
        options.output.write_text(
            json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
