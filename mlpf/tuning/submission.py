"""A search as a job of Slurm: what a site asks for, and the script that is submitted."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import mlpf
from mlpf.config.loading import load_config
from mlpf.config.search_space import check_search
from mlpf.errors import ConfigError, DataError, MissingDependency

_JOB = "hypertune.sbatch"
_WORD = r"^[^\s'\"\\#$`]+$"


class Site(BaseModel):
    """What a cluster asks of a job; one YAML file each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(description="Name of the machine, for people.")
    partition: str | None = Field(None, pattern=_WORD, description="Partition; null = the default one.")
    constraint: str | None = Field(None, pattern=_WORD, description="Features that nodes must have.")
    account: str | None = Field(None, pattern=_WORD, description="Account that pays; usually --account.")
    account_required: bool = Field(False, description="Refuse to submit without an account.")
    gpus_per_node: int = Field(ge=0, le=64, description="GPUs of a node, as Slurm counts them.")
    gpu_request: Literal["gpus-per-node", "gres"] = Field(
        "gpus-per-node",
        description="Option of sbatch that asks for GPUs; gres where the newer one is not used.",
    )
    cpus_per_node: int = Field(ge=1, le=4096, description="Cores of a node that a job may use.")
    max_minutes: int = Field(ge=10, le=60 * 24 * 60, description="Longest job, in minutes.")
    stop_margin: int = Field(5, ge=1, le=60, description="Minutes before its end at which a search stops.")
    network_interface: str | None = Field(
        None, pattern=_WORD, description="The chief listens on the IPv4 address of this interface."
    )
    host_suffix: str | None = Field(
        None, pattern=_WORD, description="Or on the name of its node with this behind it."
    )
    setup: tuple[str, ...] = Field((), description="Lines of shell before the search: modules, environment.")
    sbatch_options: tuple[str, ...] = Field((), description="More options of sbatch, one each, --name=value.")
    srun_options: str | None = Field(None, description="More options of srun.")
    scratch: str | None = Field(
        None, description="File system for large outputs, may hold $VARIABLES; elsewhere there is a warning."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Site":
        if self.network_interface and self.host_suffix:
            raise ValueError("network_interface and host_suffix both say where the chief listens; give one")
        if self.stop_margin >= self.max_minutes:
            raise ValueError(f"stop_margin {self.stop_margin} leaves nothing of {self.max_minutes} minutes")
        for line in self.sbatch_options:
            if not line.startswith("--") or "\n" in line:
                raise ValueError(f"sbatch_options: {line!r}: expected --name=value or --name")
        return self


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes:
        config: YAML file of the search.
        directory: of the search.
        nodes: number of nodes.
        seconds: length of a job; None = as long as the site allows.
        gpus_per_trial: GPUs of a trial; None = decided by ``mlpf hypertune``.
        workers: trials at a time on a node; None = decided by ``mlpf hypertune``.
        account: that pays; None = as the site says.
        partition: None = as the site says.
        constraint: None = as the site says.
        setup: lines of shell after those of the site.
        overrides: ``"a.b=value"`` of the configuration.
        options: further options of ``mlpf hypertune``, as they are passed on.
    """

    config: Path
    directory: Path
    nodes: int
    seconds: float | None = None
    gpus_per_trial: int | None = None
    workers: int | None = None
    account: str | None = None
    partition: str | None = None
    constraint: str | None = None
    setup: Sequence[str] = ()
    overrides: Sequence[str] = ()
    options: Sequence[str] = ()


def job_folder() -> Path:
    """Return the folder of job scripts and sites: in the repository, or where an installation has put it.

    Raises:
        DataError: it is in neither place.
    """
    places = [
        Path(mlpf.__file__).resolve().parents[1] / "scripts" / "slurm",
        Path(sysconfig.get_path("data")) / "share" / "mlpf" / "slurm",
    ]
    for place in places:
        if (place / _JOB).is_file():
            return place
    raise DataError(f"{_JOB}: neither in {places[0]} nor in {places[1]}; install mlpf from its repository")


def site_names() -> list[str]:
    """Return the names of the sites that come with the project."""
    return sorted(path.stem for path in (job_folder() / "sites").glob("*.yaml"))


def load_site(name: str) -> Site:
    """Read a site.

    Args:
        name: one of ``site_names()``, or a YAML file.

    Raises:
        ConfigError: there is no such site, or its file is not valid; every problem, one per line.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in site_names():
            raise ConfigError(
                f"--site {name}: no such site; there are {', '.join(site_names())}, or give a file FILE.yaml"
            )
        path = job_folder() / "sites" / f"{name}.yaml"
    try:
        data = yaml.safe_load(path.read_text())
        return Site.model_validate(data)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--site {path}: cannot be read ({error}); there are {', '.join(site_names())}"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--site {path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"--site {path}: {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
            )
        ) from None


def job_script(site: Site, request: Request) -> str:
    """Return the whole script for sbatch: options, environment, command.

    Raises:
        ConfigError: the site does not give what is asked for.
    """
    _require_possible(site, request)
    directory = request.directory.absolute()
    for path in (directory, Path.cwd()):
        if not re.fullmatch(r"[^\s'\"\\%]+", str(path)):
            raise ConfigError(f"{path}: Slurm wants paths without spaces, quotes, \\ and %; use another one")
    options = [*_sbatch_options(site, request, directory), *site.sbatch_options]
    environment = {
        "RUN_DIR": str(directory),
        "STOP_MARGIN": str(site.stop_margin),
        "NETWORK_INTERFACE": site.network_interface,
        "HOST_SUFFIX": site.host_suffix,
        "SRUN_OPTIONS": site.srun_options,
    }
    arguments = ["-c", str(request.config.absolute())]
    arguments += [word for text in request.overrides for word in ("--set", text)]
    if request.gpus_per_trial is not None:
        arguments += ["--gpus-per-trial", str(request.gpus_per_trial)]
    if request.workers is not None:
        arguments += ["--workers", str(request.workers)]
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        f"# {' '.join(site.description.split())}; written by mlpf hypertune submit",
        *site.setup,
        *request.setup,
        # Also what the site leaves open: the environment of whoever submits comes with the job.
        *(f"export {k}={shlex.quote(v)}" if v else f"unset {k}" for k, v in environment.items()),
        shlex.join(["exec", "bash", str(job_folder() / _JOB), *arguments, *request.options]),
    ]
    return "\n".join(lines) + "\n"


def _require_possible(site: Site, request: Request) -> None:
    for name in ("account", "partition", "constraint"):
        word = getattr(request, name)
        if word is not None and not re.fullmatch(_WORD, word):
            raise ConfigError(f"--{name} {word}: expected a word without spaces and quotes")
    gpus = request.gpus_per_trial
    if gpus is not None and gpus > site.gpus_per_node:
        raise ConfigError(f"--gpus-per-trial {gpus}: a node of {site.description} has {site.gpus_per_node}")
    wanted = (request.workers or 1) * (min(site.gpus_per_node, 1) if gpus is None else gpus)
    if wanted > site.gpus_per_node:
        raise ConfigError(
            f"--workers {request.workers}: they want {wanted} GPUs, a node of {site.description} has "
            f"{site.gpus_per_node}; give fewer"
        )
    if request.seconds is not None and request.seconds > 60 * site.max_minutes:
        raise ConfigError(
            f"--time {_clock(request.seconds)}: jobs of {site.description} end after "
            f"{_clock(60 * site.max_minutes)}; give less, a search goes on in the next job"
        )
    if request.seconds is not None and request.seconds <= 60 * (site.stop_margin + 1):
        raise ConfigError(
            f"--time {_clock(request.seconds)}: the search stops {site.stop_margin} minutes before the end; "
            "give more"
        )
    if site.account_required and not (request.account or site.account):
        raise ConfigError(f"--account: {site.description} needs the account that pays; give --account NAME")


def _sbatch_options(site: Site, request: Request, directory: Path) -> list[str]:
    seconds = 60 * site.max_minutes if request.seconds is None else request.seconds
    chosen = {
        "partition": request.partition or site.partition,
        "constraint": request.constraint or site.constraint,
        "account": request.account or site.account,
    }
    gpus = f"gpu:{site.gpus_per_node}" if site.gpu_request == "gres" else str(site.gpus_per_node)
    return [
        "--job-name=mlpf-hypertune",
        *(f"--{name}={value}" for name, value in chosen.items() if value),
        f"--nodes={request.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={site.cpus_per_node}",
        *([f"--{site.gpu_request}={gpus}"] if site.gpus_per_node else []),
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
    """Find what would end the job at once.

    Raises:
        ConfigError: the configuration is not valid, has no search, or one that cannot work.
    """
    config = load_config(request.config, request.overrides)
    if config.hypertune is None:
        raise ConfigError(f"{request.config}: no section hypertune: nothing to search for; add one")
    check_search(config)


def outside_scratch(site: Site, directory: Path) -> str | None:
    """Return the scratch of the site if the directory is not in it; None = it is, or the site names none."""
    scratch = os.path.expandvars(site.scratch) if site.scratch else None
    if scratch is None or "$" in scratch:
        return None
    # A project's folder there is often a link to elsewhere.
    inside = directory.absolute().is_relative_to(scratch) or directory.resolve().is_relative_to(
        Path(scratch).resolve()
    )
    return None if inside else scratch


def submit(script: str, directory: Path) -> str:
    """Give a script to sbatch.

    Args:
        script: as ``job_script`` returns it.
        directory: of the search; the folder that it is in is made, since the output of the job goes there.

    Returns:
        Number of the job.

    Raises:
        MissingDependency: there is no sbatch.
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
