import os

import pytest
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.config.loading import write_resolved
from mlpf.errors import ConfigError, MissingDependency
from tests.support.search import search_config
from tests.support.slurm_stand_ins import install

# Notes what it is given.
SBATCH = """\
#!/usr/bin/env bash
echo "$*" > "$LOG"
cat >> "$LOG"
if [[ -n "${REFUSE:-}" ]]; then echo "sbatch: error: $REFUSE" >&2; exit 1; fi
echo "4711;cluster"
"""


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Run the command in a folder with a configuration; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    write_resolved(search_config(), tmp_path / "search.yaml")

    def run(*arguments, site="one-hour"):
        words = ["hypertune", "submit", "--site", site, "--nodes", "2", "-c", "search.yaml", *arguments]
        result = CliRunner().invoke(
            cli, [*words, "-o", str(tmp_path / "out" / "search")], standalone_mode=False
        )
        if result.exception:
            raise result.exception
        return result.output

    return run


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    tools = install(tmp_path / "bin", {"sbatch": SBATCH})
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def test_print_shows_the_script_and_submits_nothing(submit, sbatch):
    shown = submit("--print", "--ntrain", "9", "--data-dir", "d", "--cpus-per-trial", "2", "--port", "5000")
    assert shown.startswith("#!/usr/bin/env bash\n#SBATCH --job-name=mlpf-hypertune\n")
    assert shown.endswith("--cpus-per-trial 2 --port 5000 --ntrain 9 --data-dir d\n")
    assert not sbatch.exists()
    assert not (sbatch.parent / "out").exists()


def test_what_print_shows_is_what_is_submitted(submit, sbatch):
    shown = submit("--print", "--time", "30m")
    told = submit("--time", "30m")
    output = sbatch.parent / "out" / "search-4711.out"
    assert told == f"job 4711; its output goes to {output}\n"
    assert output.parent.is_dir()
    assert sbatch.read_text(encoding="utf-8") == "--parsable\n" + shown


def test_what_sbatch_refuses_is_one_line(submit, sbatch, monkeypatch):
    monkeypatch.setenv("REFUSE", "invalid account")
    with pytest.raises(ConfigError, match=r"^sbatch refuses the job: sbatch: error: invalid account; look"):
        submit()


def test_without_sbatch_the_command_says_so(submit, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"^sbatch: not found"):
        submit()


@pytest.mark.parametrize(
    ("setting", "message"),
    [("hypertune=null", "no section hypertune"), ("setup.lr=-1", r"setup\.lr")],
)
def test_a_configuration_that_cannot_work_is_found_before(submit, sbatch, setting, message):
    with pytest.raises(ConfigError, match=message):
        submit("--set", setting)
    assert not sbatch.exists()


def test_a_search_that_cannot_work_is_found_before(submit, sbatch):
    with pytest.raises(ConfigError, match="no_such_key"):
        submit("--set", "hypertune.space={setup.no_such_key: {choice: [1, 2]}}")
    assert not sbatch.exists()
