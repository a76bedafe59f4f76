"""Run a search as one Slurm job with driver and workers: write the job script and submit it."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpf.config.loading import load_config
from mlpf.config.search.check import check_search
from mlpf.config.shipped import configuration_path
from mlpf.engine.sites import Site
from mlpf.errors import ConfigError, MissingDependency
from mlpf.files.shipped import shipped_folder

_JOB = "hypertune.sbatch"
_WORD = r"^[^\s'\"\\#$`]+$"
# Shorter jobs would end before their first trial has a checkpoint.
_SHORTEST_WORK_MINUTES = 5


@dataclass(frozen=True)
class Request:
    """Options of the job, as the user gave them.

    Attributes:
        config: YAML file of the search, or the name of one of the package.
        directory: of the search.
        site: name or file of the site, as it was given.
        nodes: number of nodes.
        seconds: wall time of a job, s; None = maximum of the site.
        account: account to charge; None = that of the site.
        partition: None = that of the site.
        constraint: None = that of the site.
        max_requeues: how often the job may be submitted again.
        setup: shell lines after those of the site.
        overrides: ``"a.b=value"`` overrides of the configuration.
        options: further options for ``mlpf hypertune``.
    """

    config: Path
    directory: Path
    site: str
    nodes: int
    seconds: float | None = None
    account: str | None = None
    partition: str | None = None
    constraint: str | None = None
    max_requeues: int = 100
    setup: Sequence[str] = ()
    overrides: Sequence[str] = ()
    options: Sequence[str] = ()


def job_script(site: Site, request: Request) -> str:
    """Return the whole script for sbatch: options, environment, command.

    Raises:
        ConfigError: an option does not fit the site.
    """
    _require_possible(site, request)
    directory = request.directory.absolute()
    for path in (directory, Path.cwd()):
        if not re.fullmatch(r"[^\s'\"\\%]+", str(path)):
            raise ConfigError(f"{path}: Slurm needs paths without spaces, quotes, \\ and %; use another one")
    options = [*_sbatch_options(site, request, directory), *site.scheduler_lines]
    environment = {
        "RUN_DIR": str(directory),
        "STOP_MARGIN": str(site.stop_margin),
        "MAX_REQUEUES": str(request.max_requeues),
    }
    name = str(Path(request.site).absolute()) if Path(request.site).is_file() else request.site
    job = shipped_folder("scripts/slurm") / _JOB
    arguments = ["--site", name, "-c", str(configuration_path(request.config).absolute())]
    arguments += [word for text in request.overrides for word in ("--set", text)]
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        f"# {' '.join(site.description.split())}; written by mlpf hypertune submit",
        *site.setup,
        *request.setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in environment.items()),
        shlex.join(["exec", "bash", str(job), *arguments, *request.options]),
    ]
    return "\n".join(lines) + "\n"


def _require_possible(site: Site, request: Request) -> None:
    if site.provider != "slurm":
        raise ConfigError(
            f"--site {request.site}: provider {site.provider}, submit writes jobs for slurm; run "
            "mlpf hypertune --site on a machine that reaches it"
        )
    for name in ("account", "partition", "constraint"):
        word = getattr(request, name)
        if word is not None and not re.fullmatch(_WORD, word):
            raise ConfigError(f"--{name} {word}: expected a word without spaces and quotes")
    longest = 60 * (site.max_minutes or 0)
    if request.seconds is not None and request.seconds > longest:
        raise ConfigError(
            f"--time {_clock(request.seconds)}: jobs of {site.description} end after {_clock(longest)}; give "
            "less, a search goes on in the next job"
        )
    shortest = 60 * (site.stop_margin + _SHORTEST_WORK_MINUTES)
    if request.seconds is not None and request.seconds < shortest:
        raise ConfigError(
            f"--time {_clock(request.seconds)}: the search stops {site.stop_margin} minutes before the end: "
            f"no trial would have a checkpoint; give {_clock(shortest)} or more"
        )
    if site.account_required and not (request.account or site.account):
        raise ConfigError(f"--account: {site.description} needs the account that pays; give --account NAME")


def _sbatch_options(site: Site, request: Request, directory: Path) -> list[str]:
    seconds = 60 * (site.max_minutes or 0) if request.seconds is None else request.seconds
    chosen = {
        "partition": request.partition or site.partition,
        "constraint": request.constraint or site.constraint,
        "account": request.account or site.account,
        "qos": site.qos,
        "mem": f"{site.memory_per_node}G" if site.memory_per_node else None,
    }
    gpus = {"gpus-per-node": str(site.gpus_per_node), "gres": f"gpu:{site.gpus_per_node}"}.get(
        site.gpu_request
    )
    return [
        "--job-name=mlpf-hypertune",
        *(f"--{name}={value}" for name, value in chosen.items() if value),
        f"--nodes={request.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={site.num_cores}",
        *([f"--{site.gpu_request}={gpus}"] if gpus and site.gpus_per_node else []),
        *(["--exclusive"] if site.exclusive else []),
        f"--time={_clock(seconds)}",
        "--signal=B:USR1@180",
        "--requeue",
        "--no-kill",
        "--open-mode=append",
        f"--chdir={Path.cwd()}",
        f"--output={directory}-%j.out",
    ]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def check(request: Request) -> None:
    """Check configuration and search before the job is submitted.

    Raises:
        ConfigError: the configuration is not valid, has no search, or the search cannot work.
    """
    config = load_config(request.config, request.overrides)
    if config.hypertune is None:
        raise ConfigError(f"{request.config}: no section hypertune: nothing to search for; add one")
    check_search(config, request.config)


def outside_scratch(site: Site, directory: Path) -> str | None:
    """Return the scratch folder of the site if the directory is outside of it; None if inside or unknown."""
    scratch = os.path.expandvars(site.scratch) if site.scratch else None
    if scratch is None or "$" in scratch:
        return None
    # The folder of a project is often a link to another place.
    inside = directory.absolute().is_relative_to(scratch) or directory.resolve().is_relative_to(
        Path(scratch).resolve()
    )
    return None if inside else scratch


def submit(script: str, directory: Path) -> str:
    """Give a script to sbatch.

    Args:
        script: return value of ``job_script``.
        directory: directory of the search. Its parent is created for the output of the job.

    Returns:
        Number of the job.

    Raises:
        MissingDependency: sbatch is not found.
        ConfigError: sbatch refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise MissingDependency("sbatch: not found; submit on a machine of the cluster, or look with --print")
    directory.absolute().parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ConfigError(f"sbatch refuses the job: {reason}; look at it with --print")
    return done.stdout.strip().partition(";")[0]
