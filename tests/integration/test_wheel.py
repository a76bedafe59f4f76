"""The package outside its repository: built, installed and used in an empty directory."""

import json
import zipfile

import numpy as np
import pytest

from tests.support.wheel import Installation, build_wheel

pytest.importorskip("hatchling", reason="the build backend, of extra dev, is not installed")


@pytest.fixture(scope="module")
def wheel(repo_root, tmp_path_factory):
    return build_wheel(repo_root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    return Installation.make(wheel, tmp_path_factory.mktemp("installed"))


def test_the_wheel_holds_the_package_and_what_it_reads(wheel, repo_root):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = ("*.py", "*.yaml", "*.md", "*.bib", "*.txt", "py.typed")
    in_package = [p for pattern in tracked for p in (repo_root / "mlpf").rglob(pattern)]
    expected = {str(p.relative_to(repo_root)) for p in in_package}
    for folder in ("parameters", "scripts/slurm"):
        expected |= {f"mlpf/{p.relative_to(repo_root)}" for p in (repo_root / folder).iterdir()}
    assert {name for name in names if name.startswith("mlpf/")} == expected
    assert {name.split("/")[0] for name in names} == {"mlpf", "hep_mlpf-0.1.0.dist-info"}


def test_the_package_is_that_of_the_wheel(installed):
    found = installed.code(
        "import importlib.metadata as m, json, mlpf, sys;"
        "print(json.dumps([mlpf.__file__, m.version('hep-mlpf'), [p for p in sys.path if p == '']]))"
    )
    assert found[0].startswith(str(installed.environment))
    assert found[1] == "0.1.0"


def test_configurations_spaces_sites_and_jobs_are_found(installed, repo_root):
    names = [path.stem for path in (repo_root / "parameters").iterdir()]
    listed = installed.mlpf("config", "list").splitlines()
    assert sorted(line.split()[0] for line in listed) == sorted(names)
    # The searches extend another file, and two of them name a ready space.
    checked = installed.mlpf("config", "check", *names)
    assert checked.splitlines() == [f"{name}: ok" for name in names]
    assert "juwels" in installed.mlpf("site", "list")
    job = installed.mlpf(
        "hypertune", "submit", "--site", "juwels", "--nodes", 2, "--account", "a", "-c", "clic-hypertune",
        "-o", "search", "--print",
    )  # fmt: skip
    inside = f"{installed.environment}/lib"
    script, config = (word for word in job.splitlines()[-1].split() if word.startswith(inside))
    assert script.endswith("/mlpf/scripts/slurm/hypertune.sbatch")
    assert config.endswith("/mlpf/parameters/clic-hypertune.yaml")


def test_recipes_are_those_of_the_package(installed):
    done = installed.run("mlpf", "build", "clic/ttbar", "--data-dir", "data", "-i", "nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: clic/ttbar: no recipe 'clic'; recipes are clic_edm4hep, clic_edm4hep_hits, delphes_pf"
    ]


@pytest.mark.slow
def test_the_whole_chain_runs_in_an_empty_directory(wheel, tmp_path):
    pytest.importorskip("pythia8mc")
    installed = Installation.make(wheel, tmp_path)
    mlpf, dataset = installed.mlpf, "clic_edm4hep/ttbar"
    mlpf("simulate", "ttbar", "-n", 40, "--events-per-file", 4, "--seed", 1, "-o", "root")
    mlpf("postprocess", "root", "-o", "parquet")
    mlpf(
        "build", dataset, "--data-dir", "data", "-i", "parquet", "--split-fractions", "0.6,0.2,0.2",
        "--split-seed", 1,
    )  # fmt: skip
    mlpf(
        "train", "-c", "clic-demo", "-o", "run", "--data-dir", "data", "--nepochs", 1, "--ntrain", 16,
        "--set", f"train_test_datasets.physical.datasets=[{dataset}]",
    )  # fmt: skip
    run = installed.work / "run"
    (record,) = json.loads((run / "history.json").read_text(encoding="utf-8"))
    assert record["num_events"] == 16  # two steps of batches of 8
    assert np.isfinite(record["loss"])
    mlpf("evaluate", "-t", "run")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["datasets"].keys() == {dataset}
    mlpf("export", "-t", "run")
    assert {"model.onnx", "model_card.json"} <= {path.name for path in run.iterdir()}
    assert {path.name for path in installed.work.iterdir()} == {"root", "parquet", "data", "run"}
