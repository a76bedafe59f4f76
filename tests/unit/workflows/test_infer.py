import json
from dataclasses import replace

import keras
import pytest
import yaml

from mlpf.config import load_config
from mlpf.errors import DataError
from mlpf.files.run_directory import RESOLVED_CONFIG
from mlpf.machine import devices
from mlpf.machine.host import read_host
from mlpf.workflows import import_weights, infer
from tests.support.configs import write_config
from tests.support.models import tiny_config, tiny_model
from tests.support.number_formats import skip_if_it_aborts
from tests.support.numpy_gnn import write_published


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infer")
    write_published(folder / "a.hdf5", tiny_model())
    config = load_config(write_config(folder, yaml.safe_dump({"parameters": tiny_config().model_dump()})))
    import_weights.run(config, folder / "a.hdf5", folder / "run")
    return folder / "run"


def test_every_engine_is_timed_at_every_shape(run_dir, tmp_path):
    engines = ("eager", "graph", "onnx-int8", "onnx")
    found = infer.run(
        run_dir, engines=engines, batch_sizes=(1, 2), num_elements=(32, 48), num_runs=2, output=tmp_path
    )
    shapes = {(x["engine"], x["batch_size"], x["num_elements"]) for x in found["latencies"]}
    assert shapes == {(e, b, n) for e in engines for b in (1, 2) for n in (32, 48)}
    assert all(0 < x["p50_ms"] <= x["p95_ms"] for x in found["latencies"])
    assert (
        json.loads((tmp_path / "infer.json").read_text(encoding="utf-8"))["latencies"] == found["latencies"]
    )
    assert (tmp_path / "infer.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["infer.json", "infer.png"]


@pytest.mark.parametrize(("engine", "calls"), [("eager", 5), ("graph", 1), ("xla", 1)])
def test_graphs_are_made_in_the_first_pass_only(run_dir, tmp_path, monkeypatch, engine, calls):
    """Python runs in every pass of the eager engine: the first, that for the memory, and the timed ones."""
    load, made = infer.load_trained_model, []

    def counted(*arguments):
        model, checkpoint = load(*arguments)
        call = model.call
        monkeypatch.setattr(model, "call", lambda *a, **k: (made.append(engine), call(*a, **k))[1])
        return model, checkpoint

    monkeypatch.setattr(infer, "load_trained_model", counted)
    infer.run(run_dir, engines=(engine,), batch_sizes=(1,), num_elements=(32,), num_runs=3, output=tmp_path)
    assert len(made) == calls


@pytest.mark.parametrize(
    ("engine", "has_bfloat16", "told"),
    [("graph", False, True), ("graph", True, False), ("onnx", False, False)],
)
def test_bfloat16_is_announced_where_the_cpu_emulates_it(
    run_dir, tmp_path, monkeypatch, capsys, engine, has_bfloat16, told
):
    host = replace(read_host(), has_bfloat16=has_bfloat16)
    monkeypatch.setattr(devices, "read_host", lambda *_: host)
    monkeypatch.setattr(devices, "accelerators", list)
    skip_if_it_aborts("mixed_bfloat16")
    half = load_config(run_dir / RESOLVED_CONFIG, ["setup.dtype=mixed_bfloat16"])
    monkeypatch.setattr(infer, "load_run_config", lambda _: half)
    try:
        infer.run(
            run_dir, engines=(engine,), batch_sizes=(1,), num_elements=(32,), num_runs=2, output=tmp_path
        )
    finally:
        keras.config.set_dtype_policy("float32")
    said = [line for line in capsys.readouterr().out.splitlines() if "no instructions for bfloat16" in line]
    assert len(said) == told


def test_events_longer_than_the_bins_are_refused(run_dir, tmp_path):
    with pytest.raises(DataError, match="an event has 5000 elements, the model takes 1024"):
        infer.run(run_dir, num_elements=(5000,), output=tmp_path)


def test_an_unknown_dataset_is_named(run_dir, tmp_path):
    with pytest.raises(
        DataError, match="--dataset other: not in the configuration, which has clic_edm4hep/ttbar"
    ):
        infer.run(run_dir, dataset="other", output=tmp_path)
