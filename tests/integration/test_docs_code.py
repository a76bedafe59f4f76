"""What the pages tell a user to type is what the package takes."""

import re
import shlex
import shutil

import click
import numpy as np
import pytest

from mlpf.cli import cli
from mlpf.config.detector import CLIC
from mlpf.config.loading import load_config
from mlpf.config.training_schema import OptimizerConfig, SetupConfig
from mlpf.export import export_onnx
from mlpf.physics.schemas import SCHEMAS
from mlpf.training.optimizers.schedules import build_schedule
from tests.support.models import tiny_model
from tests.support.parquet_files import write_parquet

PAGES = ("continue.md", "own_network.md", "two_nodes.md", "one_hour_queues.md", "data.md", "export.md")


def blocks(page, language):
    """Code blocks of a language in a page."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [re.sub(r"^   ", "", block, flags=re.M) if block.startswith("   ") else block for block in found]


def commands(page):
    """Commands of mlpf in a page, in blocks and in its text, as lists of words."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    # Words with variables of the shell are no words of ours.
    return [shlex.split(line)[1:] for line in lines if line.startswith("mlpf ") and "$" not in line]


def parse(words):
    """Let click check the words of a command; runs nothing."""
    command, name = cli, "mlpf"
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, name, words = command.commands[words[0]], words[0], words[1:]
    command.make_context(name, list(words))


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_the_pages_have_only_options_that_exist(repo_root, name):
    for words in commands(repo_root / "docs" / name):
        parse(words)


def test_commands_with_a_wrong_option_would_be_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```bash\nmlpf train -c a.yaml \\\n    --nepoch 3   # wrong\n```\n", encoding="utf-8")
    ((*words,),) = commands(page)
    with pytest.raises(click.NoSuchOption):
        parse(words)


@pytest.mark.parametrize("page", ["own_network.md", "data.md"])
def test_configurations_of_the_pages_are_valid(repo_root, tmp_path, page):
    shutil.copytree(repo_root / "parameters", tmp_path / "parameters")
    found = [b for b in blocks(repo_root / "docs" / page, "yaml") if "extends:" in b]
    assert found
    for block in found:
        path = tmp_path / "parameters" / "page.yaml"
        path.write_text(block, encoding="utf-8")
        load_config(path)


def test_the_example_of_the_export_runs(repo_root, tmp_path, monkeypatch, capsys):
    (code,) = blocks(repo_root / "docs" / "export.md", "python")
    (tmp_path / "experiments" / "first").mkdir(parents=True)
    (tmp_path / "parquet" / "ttbar").mkdir(parents=True)
    write_parquet(tmp_path / "parquet" / "ttbar" / "reco_p8_ee_tt_ecm380_1.parquet", 3)
    export_onnx(
        tiny_model(),
        tmp_path / "experiments" / "first" / "model.onnx",
        schema=SCHEMAS["clic"],
        detector=CLIC,
        metadata={},
    )
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    names = {}
    exec(code, names)
    assert len(capsys.readouterr().out.splitlines()) == np.count_nonzero(names["cls"])
    pt = np.hypot(names["px"], names["py"])
    np.testing.assert_allclose(pt, names["out"]["pt"], rtol=1e-5, atol=1e-5)  # float32


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
