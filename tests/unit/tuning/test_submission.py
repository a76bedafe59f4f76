import subprocess
from pathlib import Path

import pytest

from mlpf.errors import ConfigError, DataError
from mlpf.tuning import submission
from mlpf.tuning.submission import Request, Site, job_script, load_site, outside_scratch, site_names

SITE = Site(description="A machine", gpus_per_node=4, cpus_per_node=32, max_minutes=120)


def request(**changes):
    return Request(**({"config": Path("x.yaml"), "directory": Path("/shared/search"), "nodes": 2} | changes))


def options(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


def command(script):
    return script.splitlines()[-1].split()


@pytest.mark.parametrize("name", ["flatiron", "jureca", "juwels", "lumi", "one-hour"])
def test_the_sites_of_the_project_give_scripts_that_bash_can_read(name):
    assert name in site_names()
    script = job_script(load_site(name), request(account="me"))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert f"# {load_site(name).description}; written" in script
    assert f"--time={load_site(name).max_minutes // 60:02d}:00:00" in options(script)


def test_the_script_holds_options_environment_and_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = SITE.model_copy(
        update={
            "partition": "gpu",
            "gpu_request": "gres",
            "network_interface": "hsn0",
            "setup": ("module load cuda",),
            "sbatch_options": ("--exclusive",),
            "srun_options": "-l --gpu-bind=none",
            "stop_margin": 7,
        }
    )
    wanted = request(
        seconds=5400.0, gpus_per_trial=2, workers=2, account="me", setup=["true"], overrides=["a.b=c d"]
    )
    script = job_script(site, wanted)
    assert options(script) == [
        "--job-name=mlpf-hypertune",
        "--partition=gpu",
        "--account=me",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=32",
        "--gres=gpu:4",
        "--time=01:30:00",
        "--signal=B:USR1@180",
        "--requeue",
        "--no-kill",
        "--open-mode=append",
        f"--chdir={tmp_path}",
        "--output=/shared/search-%j.out",
        "--exclusive",
    ]
    assert script.splitlines()[-8:] == [
        "module load cuda",
        "true",
        "export RUN_DIR=/shared/search",
        "export STOP_MARGIN=7",
        "export NETWORK_INTERFACE=hsn0",
        "unset HOST_SUFFIX",
        "export SRUN_OPTIONS='-l --gpu-bind=none'",
        f"exec bash {submission.job_folder()}/hypertune.sbatch -c {tmp_path}/x.yaml --set 'a.b=c d' "
        "--gpus-per-trial 2 --workers 2",
    ]


def test_a_request_goes_before_the_site():
    site = SITE.model_copy(update={"partition": "a", "constraint": "b", "account": "c"})
    found = options(job_script(site, request(partition="x", constraint="y", account="z")))
    assert found[1:4] == ["--partition=x", "--constraint=y", "--account=z"]
    assert options(job_script(site, request()))[1:4] == ["--partition=a", "--constraint=b", "--account=c"]


def test_a_site_without_gpus_asks_for_none():
    site = SITE.model_copy(update={"gpus_per_node": 0})
    assert not any("gpu" in option for option in options(job_script(site, request(workers=8))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus_per_trial": 5}, "--gpus-per-trial 5: a node of A machine has 4"),
        ({"gpus_per_trial": 2, "workers": 3}, "--workers 3: they want 6 GPUs, a node of A machine has 4"),
        ({"workers": 5}, "--workers 5: they want 5 GPUs"),
        ({"seconds": 7201.0}, "--time 02:00:01: jobs of A machine end after 02:00:00"),
        ({"seconds": 300.0}, "--time 00:05:00: the search stops 5 minutes before the end"),
        ({"account": "a b"}, "--account a b: expected a word"),
        ({"directory": Path("/a b/c")}, "/a b/c: Slurm wants paths without spaces"),
    ],
)
def test_what_the_site_does_not_give_is_refused(changes, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        job_script(SITE, request(**changes))
    assert "\n" not in str(caught.value)


def test_an_account_that_is_needed_is_asked_for():
    with pytest.raises(ConfigError, match=r"^--account: A machine needs the account"):
        job_script(SITE.model_copy(update={"account_required": True}), request())


def test_an_unknown_site_lists_those_there_are():
    with pytest.raises(
        ConfigError, match="--site mars: no such site; there are flatiron, jureca, juwels, lumi"
    ):
        load_site("mars")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour: red", "colour: Extra inputs are not permitted"),
        ("[1", "not valid YAML"),
        ("3", "file: Input should be"),
        ("host_suffix: i\nnetwork_interface: ib0", "both say where the chief listens"),
        ("stop_margin: 60\nmax_minutes: 60", "leaves nothing of 60 minutes"),
        ("sbatch_options: [exclusive]", "expected --name=value"),
        ("partition: a b", "partition: String should match"),
    ],
)
def test_a_file_of_a_site_that_is_wrong_says_where(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    base = "description: m\ngpus_per_node: 1\ncpus_per_node: 1\n"
    if "max_minutes" not in text:
        base += "max_minutes: 60\n"
    path.write_text(text if text[0] in "[3" else base + text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_site(str(path))
    assert all(line.startswith(f"--site {path}: ") for line in str(caught.value).splitlines())


def test_a_missing_file_of_a_site_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: cannot be read"):
        load_site(str(tmp_path / "none.yaml"))


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


def test_an_installation_has_the_scripts_in_its_share(tmp_path, monkeypatch, repo_root):
    monkeypatch.setattr(submission.mlpf, "__file__", str(tmp_path / "site-packages" / "mlpf" / "__init__.py"))
    monkeypatch.setattr(submission.sysconfig, "get_path", lambda name: str(tmp_path / name))
    with pytest.raises(DataError, match=r"hypertune.sbatch: neither in"):
        submission.job_folder()
    share = tmp_path / "data" / "share" / "mlpf"
    share.mkdir(parents=True)
    (share / "slurm").symlink_to(repo_root / "scripts" / "slurm")
    assert submission.job_folder() == share / "slurm"
