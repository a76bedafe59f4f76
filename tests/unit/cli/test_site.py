import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlpf.cli.site import site
from mlpf.engine.sites import site_names

VALID = "description: a machine\nprovider: local\n"


def mlpf(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mlpf.pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_list_names_every_site():
    done = CliRunner().invoke(site, ["list"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == ["site", *site_names()]


def test_check(tmp_path):
    good, bad, worse = (tmp_path / name for name in ("good.yaml", "bad.yaml", "worse.yaml"))
    good.write_text(VALID, encoding="utf-8")
    bad.write_text(VALID + "cores: 4\n", encoding="utf-8")
    worse.write_text(VALID + "gpus_per_node: many\n", encoding="utf-8")
    done = mlpf("site", "check", good)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{good}: ok\n", "")
    done = mlpf("site", "check", good, bad, worse)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: {bad}:3  cores: unknown key")
    assert second.startswith(f"error: {worse}:3  gpus_per_node: input should be a valid integer")


def test_show_prints_configuration_and_job():
    done = mlpf("site", "show", "one-hour", "--nodes", 3, "--gpus-per-task", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "HighThroughputExecutor(" in done.stdout
    assert "#SBATCH --gpus-per-node=1" in done.stdout
    assert "--slots 1 --cpus 1 --gpus 1" in done.stdout


def test_show_leaves_nothing_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mlpf.pipeline", "site", "show", "this-machine"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: site nowhere: no such site; there are "),
        (["one-hour", "--cpus-per-task", 9], "error: a task wants 9 core(s), a node of any queue"),
        (["juwels"], "error: JUWELS Booster, Forschungszentrum Juelich needs the account that pays"),
    ],
)
def test_what_cannot_be_shown_is_one_line(arguments, message):
    done = mlpf("site", "show", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)


def test_without_parsl_only_show_says_what_to_install(tmp_path, repo_root):
    """Python looks only into a folder that has every package but Parsl."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("parsl"):
            (tmp_path / entry.name).symlink_to(entry)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(repo_root), str(tmp_path)))}

    def run(*arguments):
        command = [sys.executable, "-S", "-m", "mlpf.pipeline", "site", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    assert run("list").returncode == 0
    done = run("show", "this-machine")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "is not installed; pip install -e '.[cluster]' in the checkout" in done.stderr
