"""``mlpf hypertune submit`` with the sbatch of a real Slurm."""

import pytest
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.config.loading import write_resolved
from mlpf.errors import ConfigError, MissingDependency
from tests.support.search import search_config

SITE = """\
description: two virtual nodes
provider: slurm
cores_per_node: 1
max_minutes: 30
exclusive: false
"""


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Run the command in a folder with a configuration; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    write_resolved(search_config(), tmp_path / "search.yaml")
    (tmp_path / "site.yaml").write_text(SITE, encoding="utf-8")

    def run(*arguments):
        words = ["hypertune", "submit", "--site", "site.yaml", "--nodes", "2", "-c", "search.yaml"]
        words += [*arguments, "-o", str(tmp_path / "out" / "search")]
        result = CliRunner().invoke(cli, words, standalone_mode=False)
        if result.exception:
            raise result.exception
        return result.output

    return run


@pytest.fixture
def with_slurm(slurm, monkeypatch):
    """Let programs of this process find the Slurm of the tests."""
    for name, value in slurm.environment.items():
        if name.startswith("SLURM_"):
            monkeypatch.setenv(name, value)
    return slurm


def test_print_shows_the_script_and_submits_nothing(submit, tmp_path):
    shown = submit("--print", "--ntrain", "9", "--data-dir", "d", "--cpus-per-trial", "2")
    assert shown.startswith("#!/usr/bin/env bash\n#SBATCH --job-name=mlpf-hypertune\n")
    assert shown.endswith(f"--cpus-per-trial 2 --ntrain 9 --data-dir {tmp_path}/d\n")
    assert not (tmp_path / "out").exists()


def test_what_print_shows_is_what_slurm_gets(submit, with_slurm, tmp_path):
    options = ("--time", "20m", "--max-requeues", "3", "--setup", "exit 0  # before the search")
    shown = submit("--print", *options)
    assert "export MAX_REQUEUES=3" in shown
    told = submit(*options)
    number = told.split()[1].rstrip(";")
    assert told == f"job {number}; its output goes to {tmp_path}/out/search-{number}.out\n"
    assert (
        with_slurm.command("scontrol", "write", "batch_script", number, "-").stdout.rstrip("\0\n")
        == shown.rstrip()
    )
    job = with_slurm.command("scontrol", "show", "job", number).stdout
    for wanted in ("NumNodes=2", "TimeLimit=00:20:00", "Requeue=1", "JobName=mlpf-hypertune"):
        assert wanted in job


def test_what_sbatch_refuses_is_one_line_in_its_words(submit, with_slurm):
    with pytest.raises(
        ConfigError, match=r"^sbatch refuses the job: .*invalid partition.*--print$"
    ) as caught:
        submit("--partition", "moon")
    assert "\n" not in str(caught.value)


def test_without_sbatch_the_command_says_so(submit, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"^sbatch: not found"):
        submit()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hypertune=null", "no section hypertune"),
        ("setup.lr=-1", r"setup\.lr"),
        ("hypertune.space={setup.no_such_key: {choice: [1, 2]}}", "no_such_key"),
    ],
)
def test_a_configuration_that_cannot_work_is_found_before(submit, tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        submit("--set", setting)
    assert not (tmp_path / "out").exists()
