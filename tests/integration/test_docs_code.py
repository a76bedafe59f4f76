"""Every code block of README and docs is run, or says before it why not; every command is one that exists."""

import ast
import shutil
from collections import Counter
from pathlib import Path
from textwrap import indent

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import mlpf
from mlpf.cli import cli
from mlpf.config.detector import find_detector
from mlpf.config.loading import load_config
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.data.dataset.examples import make_examples
from mlpf.data.events import iterate_events
from mlpf.engine.sites import load_site
from mlpf.ensemble.table import read_rows
from mlpf.training.optimizers.schedules import build_schedule
from tests.support.docs_blocks import (
    REASONS,
    inline_commands,
    mlpf_words,
    pages,
    parse,
    programs,
    read_blocks,
)
from tests.support.models import TINY_GRAPH, TINY_NETWORK

ROOT = Path(__file__).resolve().parents[2]
TTBAR = "clic_edm4hep/ttbar"
# Options that make a command of a page short; the last one of its kind counts.
FEW = ["--nepochs", "2", "--ntrain", "8", "--ntest", "8"]
SHORT = {
    "simulate": ["-n", "40", "--events-per-file", "20", "-j", "1"],
    "train": FEW,
    "train-many": [*FEW, "--seeds", "1:2"],
    "find-lr": ["--ntrain", "8", "--steps", "10"],
    "hypertune": [
        *["--ntrain", "8", "--ntest", "8", "--set", "setup.num_epochs=3", "--set", "hypertune.num_trials=2"],
        *["--set", "hypertune.confirm.top=0"],
    ],
}


def mlpf_command(*words):
    """Run ``mlpf`` in this process."""
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, f"mlpf {' '.join(words)}\n{done.output}"


@pytest.fixture(scope="module")
def everything(repo_root, tmp_path_factory):
    """A folder as the pages have it: files, parquet files, a dataset and a run of a small network."""
    pytest.importorskip("pythia8mc")
    folder = tmp_path_factory.mktemp("docs")
    for name in ("parameters", "scripts"):
        shutil.copytree(repo_root / name, folder / name)
    for block in (block for page in pages(repo_root) for block in read_blocks(page) if block.file):
        (folder / block.file).write_text(block.code, encoding="utf-8")
    network = {**TINY_NETWORK, "combined_graph_layer": {**TINY_GRAPH, "max_num_bins": 1024}}
    small = {"parameters": network, "train_test_datasets": {"physical": {"datasets": [TTBAR]}}}
    wider = {"node_encoding_hidden_dim": 2 * TINY_NETWORK["node_encoding_hidden_dim"]}
    for name, more in (("tiny", {}), ("my", {}), ("wider", {"parameters": {**network, **wider}})):
        text = yaml.safe_dump({"extends": "clic-demo", **small, **more})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlpf_command("simulate", "ttbar", "--seed", "1", "-o", "root/ttbar", *SHORT["simulate"])
        mlpf_command("simulate", "ttbar", "--seed", "2", "-o", "my_files", "-n", "40")
        (folder / "my_files" / "reco_p8_ee_tt_ecm380_1.root").rename(folder / "my_files" / "events.root")
        mlpf_command("postprocess", "root/ttbar", "-o", "parquet/ttbar")
        for dataset in (TTBAR, "clic_edm4hep/qq", "clic_edm4hep/my_ttbar"):
            mlpf_command("build", dataset, "-i", "parquet/ttbar")
        mlpf_command("train", "-c", "tiny.yaml", "-o", "experiments/first", *FEW)
        mlpf_command("evaluate", "-t", "experiments/first")
        mlpf_command("export", "-t", "experiments/first")
        event = mlpf.open_dataset(mlpf.load_config("tiny.yaml"), TTBAR)[0]
        (folder / "experiments" / "first" / "diverged").mkdir()
        np.savez(
            folder / "experiments" / "first" / "diverged" / "epoch_7_step_123.npz",
            X=event["X"][np.newaxis],
            dataset=[TTBAR],
            index=[0],
            event=[event["event"]],
        )
    return folder


@pytest.fixture
def in_folder(everything, tmp_path, monkeypatch):
    """A copy of the folder, which is the working directory."""
    folder = tmp_path / "docs"
    shutil.copytree(everything, folder)
    monkeypatch.chdir(folder)
    return folder


def shortened(words):
    """The same command with few events, epochs and trials; what it makes must not be there."""
    if words[0] not in SHORT or "--resume" in words or "report" in words:
        return words
    if words[0] != "simulate" and "-o" in words:
        shutil.rmtree(words[words.index("-o") + 1], ignore_errors=True)
    if "--stop-after" in words:  # which must not be beyond the last epoch
        return [*words, *FEW[2:]]
    return [*words, *SHORT[words[0]]]


def run_page(page, root, reasons, change=list):
    """Run the blocks of a page that have one of the reasons, in order; return the names of its Python."""
    names: dict = {}
    for block in read_blocks(page):
        if block.reason not in reasons or block.language == "yaml":
            continue
        if block.language == "python":
            exec(compile(block.code, str(block), "exec"), names)
            continue
        for words in programs(block):
            found = mlpf_words(words, root)
            assert found is not None, f"{block}: {words[0]} is not run by the tests; say why before the block"
            mlpf_command(*change(found))
    return names


def with_blocks(root, reasons):
    """Names of the pages that have blocks to run with one of the reasons; None = not marked."""
    return [
        page.name
        for page in pages(root)
        if any(b.language != "yaml" and b.reason in reasons for b in read_blocks(page))
    ]


def find(root, name):
    return next(page for page in pages(root) if page.name == name)


@pytest.mark.parametrize("name", with_blocks(ROOT, {None}))
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the export
def test_the_blocks_of_a_page_run(name, repo_root, in_folder, capsys):
    names = run_page(find(repo_root, name), repo_root, {None})
    if name in CHECKS:
        CHECKS[name](names, capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("name", with_blocks(ROOT, {"minutes"}))
def test_blocks_that_need_minutes_run_with_fewer_events(name, repo_root, in_folder):
    run_page(find(repo_root, name), repo_root, {None, "minutes"}, shortened)


def check_export(names, printed):
    assert len(printed.splitlines()) == np.count_nonzero(names["cls"])
    pt = np.hypot(names["px"], names["py"])
    np.testing.assert_allclose(pt, names["out"]["pt"], rtol=1e-5, atol=1e-5)  # float32
    assert names["pz"] == pytest.approx(pt * np.sinh(names["out"]["eta"]), rel=1e-5, abs=1e-5)
    path = Path("parquet/ttbar/reco_p8_ee_tt_ecm380_1.parquet")
    example = make_examples(next(iterate_events(path)), path.stem)[0]
    np.testing.assert_array_equal(names["x"][0], example["X"])


def test_the_example_of_the_export_does_not_need_the_package(repo_root):
    (block,) = (b for b in read_blocks(find(repo_root, "export.md")) if b.language == "python")
    imported = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(block.code))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported == {"json", "numpy", "onnxruntime", "pyarrow"}


def check_library(names, printed):
    events, elements = len(names["dataset"]), names["dataset"].lengths
    assert f"{events} events, {elements.sum()} elements; arrays: " in printed
    assert "zz: not in the configuration, which has clic_edm4hep/" in printed
    assert "the override 'datasets.clic_edm4hep/zz.version=1.0.0'" in printed
    assert names["mine"].name == "clic_edm4hep/my_ttbar"
    assert len(names["mine"]) == events
    assert names["tracks"].shape[1] == 17
    assert 0 < len(names["tracks"]) < elements[0]
    assert names["classes"].shape == (elements[0],)
    assert len(names["response"]) == len(names["gen_pt"]) > 0
    assert names["files"]["float32"].path.is_file()


CHECKS = {"export.md": check_export, "library.md": check_library}


@pytest.mark.parametrize(
    "block", [b for p in pages(ROOT) for b in read_blocks(p) if b.language == "yaml"], ids=str
)
def test_yaml_of_the_pages_is_valid(block, in_folder):
    """A configuration or a part of it, conditions of a search, a table of an ensemble, or a site."""
    value, path = yaml.safe_load(block.code), Path(block.file or "parameters/page.yaml")
    code = block.code
    if isinstance(value, list):
        assert read_rows(written(path, code))
    elif "provider" in value:
        assert load_site(written(path, code)).provider == value["provider"]
    elif "field_T" in value:
        assert find_detector(str(written(path, code))).name == value["name"]
    else:
        if all("." in key for key in value):
            code = "hypertune:\n  space:\n" + indent(code, "    ")
        if "extends" not in value:
            code = "extends: clic-demo\n" + code
        load_config(written(path, code))


def written(path, code):
    path.parent.mkdir(exist_ok=True)
    path.write_text(code, encoding="utf-8")
    return path


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.name)
def test_commands_of_the_pages_have_only_options_that_exist(page, repo_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in read_blocks(page):
        if block.file:  # an option can read it
            written(Path(block.file), block.code)
        if block.language == "bash":
            found = [mlpf_words(words, repo_root) for words in programs(block)]
            assert found, f"{block}: no program in it"
            for words in found:
                if words is not None:
                    parse(words)
    for words in inline_commands(page):
        try:
            parse(words)
        except click.BadParameter:  # text may leave out options, and write N for a number,
            continue
        except click.BadOptionUsage as error:  # or leave out the value of an option
            if "requires an argument" not in str(error):
                raise


def test_a_wrong_option_and_a_wrong_program_would_be_found(tmp_path, repo_root):
    page = tmp_path / "page.md"
    code = "for s in a b; do\n  mlpf train -c $s.yaml \\\n    --nepoch 3   # wrong\ndone\nmlfp train\n"
    page.write_text(f"```bash\n{code}```\n", encoding="utf-8")
    (block,) = read_blocks(page)
    first, second, third = programs(block)
    assert first == ["mlpf", "train", "-c", "a.yaml", "--nepoch", "3"]
    assert second[3] == "b.yaml"
    with pytest.raises(click.NoSuchOption):
        parse(mlpf_words(first, repo_root))
    with pytest.raises(AssertionError, match="unknown program mlfp"):
        mlpf_words(third, repo_root)


def test_most_blocks_run(repo_root, capsys):
    blocks = [block for page in pages(repo_root) for block in read_blocks(page)]
    unknown = {block.reason for block in blocks} - {None, *REASONS}
    assert unknown == set()
    count = Counter(block.reason for block in blocks)
    share = (count[None] + count["minutes"]) / len(blocks)
    with capsys.disabled():
        click.echo(
            f"\ncode blocks: {len(blocks)}; run by make test {count.pop(None)}, by make test-slow "
            f"{count.pop('minutes')} ({share:.0%} together); commands parsed only: {dict(count)}"
        )
    assert share > 0.7


@pytest.mark.parametrize(
    ("changes", "rate"),
    [({}, 5e-4), ({"lr": 1e-4}, 5e-5), ({"lr": 1e-4, "lr_schedule": "none"}, 1e-4)],
)
def test_rates_of_the_page_on_resuming(changes, rate):
    """A run of 10 epochs of 100 updates ended; it goes on to 20 epochs."""
    ended = build_schedule(SetupConfig(num_epochs=10), OptimizerConfig(), 1000)
    assert float(ended(1000)) == pytest.approx(0.0, abs=1e-9)
    schedule = build_schedule(SetupConfig(num_epochs=20, **changes), OptimizerConfig(), 2000)
    found = schedule if isinstance(schedule, float) else float(schedule(1000))
    assert found == pytest.approx(rate, rel=1e-5)
