import subprocess
from pathlib import Path

import pytest

from mlpf.engine.sites import Site, load_site, site_names
from mlpf.errors import ConfigError
from mlpf.search.submission import Request, job_script, outside_scratch

SITE = Site(
    description="A machine",
    provider="slurm",
    gpus_per_node=4,
    cores_per_node=32,
    max_minutes=120,
    exclusive=False,
)
OF_SLURM = [name for name in site_names() if load_site(name).provider == "slurm"]


def request(**changes):
    given = {"config": Path("x.yaml"), "directory": Path("/shared/search"), "site": "machine", "nodes": 2}
    return Request(**(given | changes))


def options(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


@pytest.mark.parametrize("name", OF_SLURM)
def test_the_sites_of_the_package_give_scripts_that_bash_can_read(name):
    site = load_site(name)
    script = job_script(site, request(account="me"))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert f"# {site.description}; written" in script
    assert f"--time={site.max_minutes // 60:02d}:{site.max_minutes % 60:02d}:00" in options(script)


def test_the_script_holds_options_environment_and_command(tmp_path, monkeypatch, repo_root):
    monkeypatch.chdir(tmp_path)
    site = SITE.model_copy(
        update={
            "partition": "gpu",
            "gpu_request": "gres",
            "memory_per_node": 90,
            "exclusive": True,
            "setup": ("module load cuda",),
            "scheduler_lines": ("--hint=nomultithread",),
            "stop_margin": 7,
        }
    )
    wanted = request(
        seconds=5400.0,
        account="me",
        max_requeues=9,
        setup=["true"],
        overrides=["a.b=c d"],
        options=["--x", "1"],
    )
    script = job_script(site, wanted)
    assert options(script) == [
        "--job-name=mlpf-hypertune",
        "--partition=gpu",
        "--account=me",
        "--mem=90G",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=32",
        "--gres=gpu:4",
        "--exclusive",
        "--time=01:30:00",
        "--signal=B:USR1@180",
        "--requeue",
        "--no-kill",
        "--open-mode=append",
        f"--chdir={tmp_path}",
        "--output=/shared/search-%j.out",
        "--hint=nomultithread",
    ]
    assert script.splitlines()[-6:] == [
        "module load cuda",
        "true",
        "export RUN_DIR=/shared/search",
        "export STOP_MARGIN=7",
        "export MAX_REQUEUES=9",
        f"exec bash {repo_root}/scripts/slurm/hypertune.sbatch --site machine -c {tmp_path}/x.yaml "
        "--set 'a.b=c d' --x 1",
    ]


def test_a_file_of_a_site_is_named_so_that_the_job_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert f"--site {tmp_path}/mine.yaml -c" in job_script(SITE, request(site="mine.yaml"))


def test_a_request_goes_before_the_site():
    site = SITE.model_copy(update={"partition": "a", "constraint": "b", "account": "c"})
    found = options(job_script(site, request(partition="x", constraint="y", account="z")))
    assert found[1:4] == ["--partition=x", "--constraint=y", "--account=z"]
    assert options(job_script(site, request()))[1:4] == ["--partition=a", "--constraint=b", "--account=c"]


@pytest.mark.parametrize("changes", [{"gpus_per_node": 0}, {"gpu_request": "none"}])
def test_no_gpus_are_asked_for_where_there_are_none_or_they_come_unasked(changes):
    assert not any(
        "gpu" in option for option in options(job_script(SITE.model_copy(update=changes), request()))
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 7201.0}, "--time 02:00:01: jobs of A machine end after 02:00:00"),
        ({"seconds": 300.0}, "--time 00:05:00: the search stops 5 minutes before the end"),
        ({"account": "a b"}, "--account a b: expected a word"),
        ({"directory": Path("/a b/c")}, "/a b/c: Slurm needs paths without spaces"),
    ],
)
def test_what_the_site_does_not_give_is_refused(changes, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        job_script(SITE, request(**changes))
    assert "\n" not in str(caught.value)


def test_another_scheduler_than_slurm_is_refused():
    with pytest.raises(
        ConfigError, match=r"^--site this-machine: provider local, submit writes jobs for slurm"
    ):
        job_script(load_site("this-machine"), request(site="this-machine"))


def test_an_account_that_is_needed_is_asked_for():
    with pytest.raises(ConfigError, match=r"^--account: A machine needs the account"):
        job_script(SITE.model_copy(update={"account_required": True}), request())


def test_a_directory_outside_of_scratch_is_told(tmp_path, monkeypatch):
    site = SITE.model_copy(update={"scratch": "$SCRATCH"})
    monkeypatch.delenv("SCRATCH", raising=False)
    assert outside_scratch(site, tmp_path) is None
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    assert outside_scratch(site, tmp_path / "home") == str(tmp_path / "scratch")
    assert outside_scratch(site, tmp_path / "scratch" / "search") is None
    (tmp_path / "link").symlink_to(tmp_path / "scratch")
    assert outside_scratch(site, tmp_path / "link" / "search") is None
    assert outside_scratch(SITE, tmp_path) is None
