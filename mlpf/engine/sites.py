"""Sites: descriptions of clusters, one YAML file each."""

import importlib.util
import os
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mlpf.config.documents import read_model
from mlpf.engine.base import Slot
from mlpf.errors import ConfigError, MissingDependency, how_to_install

Provider = Literal["local", "slurm", "htcondor", "kubernetes"]

_WORD = r"^[^\s'\"\\#$`]+$"
_SUFFIXES = (".yaml", ".yml")
_FOLDER = resources.files("mlpf.engine") / "sites"

# Keys that only some providers use.
_ONLY_FOR: dict[str, tuple[Provider, ...]] = {
    "partition": ("slurm",),
    "qos": ("slurm",),
    "constraint": ("slurm",),
    "account": ("slurm", "htcondor"),
    "account_required": ("slurm", "htcondor"),
    "gpu_request": ("slurm",),
    "exclusive": ("slurm",),
    "srun_options": ("slurm",),
    "nodes_per_job": ("slurm",),
    "scheduler_lines": ("slurm", "htcondor"),
    "container": ("slurm", "htcondor", "kubernetes"),
    "container_options": ("slurm", "htcondor"),
    "requirements": ("htcondor",),
    "namespace": ("kubernetes",),
    "volumes": ("kubernetes",),
    "max_minutes": ("slurm", "htcondor"),
}


class Site(BaseModel):
    """A cluster, or this machine: what its nodes have, and the options of its pilot jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(description="Name of the machine, for people.")
    provider: Provider = Field(description="What starts workers: local, slurm, htcondor or kubernetes.")
    cores_per_node: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Cores of a node that a job may use; null = all, provider local only.",
    )
    gpus_per_node: int = Field(0, ge=0, le=64, description="GPUs of a node, as the scheduler counts them.")
    gpu_request: Literal["gpus-per-node", "gres", "none"] = Field(
        "gpus-per-node",
        description="Option of sbatch that asks for GPUs; none where the partition gives them unasked.",
    )
    memory_per_node: int | None = Field(None, ge=1, description="GB that a job asks for; null = the default.")
    max_minutes: int | None = Field(
        None, ge=1, le=60 * 24 * 60, description="Longest pilot job, in minutes; null = it does not end."
    )
    stop_margin: int = Field(
        5, ge=0, le=60, description="Minutes before the end of a pilot job at which it begins no more tasks."
    )
    nodes_per_job: int = Field(1, ge=1, le=1024, description="Nodes of one pilot job.")
    account: str | None = Field(None, pattern=_WORD, description="Account that pays.")
    account_required: bool = Field(False, description="Refuse to submit without an account.")
    partition: str | None = Field(None, pattern=_WORD, description="Partition; null = the default one.")
    qos: str | None = Field(None, pattern=_WORD, description="Quality of service.")
    constraint: str | None = Field(None, pattern=_WORD, description="Features that nodes must have.")
    exclusive: bool = Field(True, description="Ask for whole nodes.")
    scheduler_lines: tuple[str, ...] = Field(
        (), description="More lines of the job: options of sbatch (--name=value), or commands of HTCondor."
    )
    srun_options: str = Field("", description="More options of srun.")
    requirements: str = Field("", description="Expression that an HTCondor machine must fulfil.")
    setup: tuple[str, ...] = Field((), description="Lines of shell before the worker: modules, environment.")
    network_interface: str | None = Field(
        None, pattern=_WORD, description="Nodes reach the driver on the IPv4 address of this interface."
    )
    host_suffix: str | None = Field(
        None, pattern=_WORD, description="Or on the name of its machine with this behind it."
    )
    address: str | None = Field(None, pattern=_WORD, description="Or on this address.")
    scratch: str | None = Field(
        None, description="File system for large outputs that all nodes see; may hold $VARIABLES."
    )
    container: str | None = Field(
        None, description="Image that workers run in: a file for Apptainer, a name on Kubernetes."
    )
    container_options: str = Field("", description="More options of apptainer exec, such as --nv.")
    namespace: str = Field("default", pattern=_WORD, description="Namespace of Kubernetes.")
    volumes: dict[str, str] = Field({}, description="Kubernetes: volume claim -> folder where it is mounted.")

    @model_validator(mode="after")
    def _consistent(self) -> "Site":
        given = [key for key in ("network_interface", "host_suffix", "address") if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say where the driver is reached; give one")
        for key in sorted(self.model_fields_set):
            allowed = _ONLY_FOR.get(key)
            if allowed and self.provider not in allowed:
                raise ValueError(f"provider {self.provider} does not use {key}; remove it")
        if self.max_minutes is not None and 2 * self.stop_margin >= self.max_minutes:
            raise ValueError(
                f"stop_margin {self.stop_margin} leaves too little of {self.max_minutes} minutes: "
                "give less than half"
            )
        if self.provider == "slurm" and self.max_minutes is None:
            raise ValueError("max_minutes is missing: how long a pilot job of Slurm may be")
        if self.provider != "local" and self.cores_per_node is None:
            raise ValueError("cores_per_node is missing: how many cores a pilot job asks for")
        if self.provider == "kubernetes" and not self.container:
            raise ValueError("container is missing: the image that pods run")
        if self.provider == "slurm":
            for line in self.scheduler_lines:
                if not line.startswith("--") or "\n" in line:
                    raise ValueError(f"scheduler_lines: {line!r}: expected --name=value or --name")
        return self

    @property
    def num_cores(self) -> int:
        """Cores of a node for all workers together."""
        if self.cores_per_node is not None:
            return self.cores_per_node
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def site_names() -> list[str]:
    """Return the names of the sites that come with the package."""
    return sorted(Path(file.name).stem for file in _FOLDER.iterdir() if file.name.endswith(_SUFFIXES))


def load_site(name: str | Path) -> Site:
    """Read and check a site.

    Args:
        name: one of ``site_names()``, or a YAML file.

    Raises:
        ConfigError: no such site, or its file is not valid: every problem, one per line.
    """
    known = f"there are {', '.join(site_names())}, or give a file FILE.yaml"
    path = Path(name)
    if path.suffix in _SUFFIXES:
        return read_model(path, known, Site)
    if str(name) not in site_names():
        raise ConfigError(f"site {name}: no such site; {known}")
    with resources.as_file(_FOLDER / f"{name}.yaml") as packaged:
        return read_model(packaged, known, Site)


def require_parsl() -> None:
    """Check without importing it that Parsl is installed.

    Raises:
        MissingDependency: it is not.
    """
    if importlib.util.find_spec("parsl") is None:
        raise MissingDependency(
            f"Parsl, the engine of clusters, is not installed; {how_to_install('cluster')}"
        )


def slots_per_node(site: Site, slot: Slot) -> int:
    """Return how many slots a node has.

    Raises:
        ConfigError: a node has fewer cores or GPUs than one slot wants.
    """
    counts = []
    for wanted, there, what in (
        (slot.num_cpus, site.num_cores, "core(s)"),
        (slot.num_gpus, site.gpus_per_node, "GPU(s)"),
    ):
        if wanted > there:
            raise ConfigError(
                f"a task wants {wanted} {what}, a node of {site.description} has {there}; ask for fewer"
            )
        if wanted:
            counts.append(there // wanted)
    return min(counts)


def job_seconds(site: Site) -> int | None:
    """Return the wall time of a pilot job; None if it has no limit."""
    return None if site.max_minutes is None else 60 * site.max_minutes
