"""Parsl's providers for the sites: they submit, check and cancel pilot jobs."""

import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SingleNodeLauncher, SrunLauncher
from parsl.launchers.base import Launcher
from parsl.providers import CondorProvider, KubernetesProvider, LocalProvider, SlurmProvider

from mlpf.engine.base import EngineFailed
from mlpf.engine.sites import Site, job_seconds
from mlpf.errors import ConfigError, MissingDependency, how_to_install

LABEL = "mlpf"

_COMMAND_SECONDS = 60
_END_SECONDS = 10.0
_FINISHED = ("CA", "CD", "F", "TO", "NF", "BF", "DL", "OOM", "RV", "PR")


class LocalGroups(LocalProvider):
    """Parsl's local provider; cancels whole process groups and waits for their end without ``ps``."""

    def submit(self, command: str, tasks_per_node: int, job_name: str = LABEL) -> Any:
        """Start a pilot; returns its process id."""
        job = super().submit(command, tasks_per_node, job_name)
        with suppress(ProcessLookupError):
            self.resources[job]["group"] = os.getpgid(int(job))
        return job

    def cancel(self, job_ids: Sequence[Any]) -> list[bool]:
        """End pilots and all processes that they started."""
        groups = [self.resources[job]["group"] for job in job_ids if "group" in self.resources[job]]
        for job in job_ids:
            self.resources[job]["cancelled"] = True
        _end_groups(groups, signal.SIGTERM)
        _end_groups(groups, signal.SIGKILL)
        return [True] * len(job_ids)

    @staticmethod
    def _is_alive(job_dict: dict[str, Any]) -> bool:
        """Return whether a pilot runs. In some containers killed processes remain as zombies."""
        with suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(job_dict["remote_pid"]).status() != psutil.STATUS_ZOMBIE)
        return False


class Slurm(SlurmProvider):
    """Parsl's Slurm provider that asks ``squeue`` for all jobs of the user.

    Parsl asks for jobs by number. That fails once Slurm has forgotten one of them, five minutes after its end
    by default. A driver that was suspended for that long would take ended jobs for running ones.
    """

    def _status(self) -> None:
        command = f"squeue --noheader --user={os.getuid()} --format='%i %t'"
        code, stdout, _ = self.execute_wait(command)
        if code != 0:
            return  # the controller does not answer now: keep the old states
        states = dict(line.split()[:2] for line in stdout.splitlines() if len(line.split()) >= 2)
        for job, record in self.resources.items():
            if record["status"].terminal:
                continue
            state = states.get(job)
            if state is None or state in _FINISHED:
                new = JobState.COMPLETED
            else:
                new = JobState.PENDING if state in ("PD", "CF") else JobState.RUNNING
            paths = {key: record[f"job_{key}"] for key in ("stdout_path", "stderr_path")}
            record["status"] = JobStatus(new, **paths)


class _PrintedSlurm(Slurm):
    """Does not submit: the job is only printed."""

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:  # noqa: ARG002
        return 0, "Submitted batch job 1", ""


class _PrintedCondor(CondorProvider):
    """Does not submit: the job is only printed."""

    def execute_wait(self, cmd: str, timeout: int | None = None) -> tuple[int, str, str]:  # noqa: ARG002
        return 0, "1 job(s) submitted to cluster 1.", ""


class PodClient:
    """Kubernetes client for pods that are not restarted when they end.

    Args:
        client: client of the provider; None = only remember the pod.
    """

    def __init__(self, client: Any = None):
        self._client = client
        self.pod: Any = None

    def create_namespaced_pod(self, namespace: str, body: Any) -> Any:
        """Create a pod that runs once. By default Kubernetes would restart it for ever."""
        body.spec.restart_policy = "Never"
        self.pod = body
        return body if self._client is None else self._client.create_namespaced_pod(namespace, body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def make_provider(site: Site, nodes: int, setup: str, printed: bool) -> Any:
    """Return the provider of a site.

    Args:
        site: the site.
        nodes: number of nodes.
        setup: shell lines before the pilot program.
        printed: only print the job; nothing will be submitted.

    Raises:
        ConfigError: the number of nodes does not fit the site, or its account is missing.
        MissingDependency: a program or package of the provider is missing.
        EngineFailed: there is no access to Kubernetes.
    """
    if nodes % site.nodes_per_job:
        raise ConfigError(
            f"{nodes} node(s): a pilot job of {site.description} has {site.nodes_per_job}; ask for a multiple"
        )
    if site.account_required and not site.account:
        raise ConfigError(
            f"{site.description} needs the account that pays; write `account: NAME` into a copy of its file"
        )
    jobs = nodes // site.nodes_per_job
    blocks = {"init_blocks": jobs, "min_blocks": jobs, "max_blocks": jobs}
    if site.provider == "slurm":
        _require_program("sbatch", printed)
        return _slurm(site, {**blocks, "worker_init": setup}, printed)
    if site.provider == "htcondor":
        _require_program("condor_submit", printed)
        return _condor(site, {**blocks, "worker_init": setup}, printed)
    if site.provider == "kubernetes":
        return _kubernetes(site, {**blocks, "worker_init": setup}, printed)
    return LocalGroups(launcher=SingleNodeLauncher(debug=False), worker_init=setup, **blocks)


def _slurm(site: Site, common: dict[str, Any], printed: bool) -> Slurm:
    gpus, by_gres = site.gpus_per_node, site.gpu_request == "gres"
    # Remove a pilot job that lost its node, so that it is replaced at once; HTCondor would keep it waiting.
    lines = ["--no-requeue", *site.scheduler_lines]
    launcher: Launcher = SrunLauncher(
        debug=False, overrides=f"--cpus-per-task={site.num_cores} {site.srun_options}".strip()
    )
    return (_PrintedSlurm if printed else Slurm)(
        partition=site.partition,
        account=site.account,
        qos=site.qos,
        constraint=site.constraint,
        nodes_per_block=site.nodes_per_job,
        cores_per_node=site.cores_per_node,
        mem_per_node=site.memory_per_node,
        gpus_per_node=gpus if gpus and site.gpu_request == "gpus-per-node" else None,
        gres=f"gpu:{gpus}" if gpus and by_gres else None,
        exclusive=site.exclusive,
        walltime=_clock(job_seconds(site) or 0),
        scheduler_options="\n".join(f"#SBATCH {line}" for line in lines),
        cmd_timeout=_COMMAND_SECONDS,
        launcher=launcher,
        **common,
    )


def _condor(site: Site, common: dict[str, Any], printed: bool) -> CondorProvider:
    lines = list(site.scheduler_lines)
    if site.gpus_per_node:
        lines.append(f"request_gpus = {site.gpus_per_node}")
    if site.max_minutes is not None:
        lines.append(
            f"periodic_remove = (JobStatus == 2) && (time() - EnteredCurrentStatus > {60 * site.max_minutes})"
        )
    if site.account:
        lines.append(f"accounting_group = {site.account}")
    # Parsl keeps ended jobs in the queue until it removes them. Limit that, in case the driver is killed.
    lines.append("leave_in_queue = (JobStatus == 4) && (time() - EnteredCurrentStatus < 3600)")
    return (_PrintedCondor if printed else CondorProvider)(
        cores_per_slot=site.cores_per_node,
        mem_per_slot=site.memory_per_node,
        project='"mlpf"',
        scheduler_options="\n".join(lines),
        requirements=site.requirements,
        launcher=SingleNodeLauncher(debug=False),
        cmd_timeout=_COMMAND_SECONDS,
        **common,
    )


def _kubernetes(site: Site, common: dict[str, Any], printed: bool) -> KubernetesProvider:
    try:
        import kubernetes
    except ImportError:
        raise MissingDependency(
            f"provider kubernetes of {site.description}: its client is not installed; "
            + how_to_install("cluster", "kubernetes")
        ) from None
    gpus = {"nvidia.com/gpu": str(site.gpus_per_node)} if site.gpus_per_node else {}
    memory: dict[str, Any] = {}
    if site.memory_per_node is not None:
        memory = dict.fromkeys(("max_mem", "init_mem"), f"{site.memory_per_node}Gi")
    try:
        provider = KubernetesProvider(
            image=site.container or "",
            namespace=site.namespace,
            max_cpu=site.num_cores,
            init_cpu=site.num_cores,
            extra_limits=gpus,
            extra_requests=gpus,
            persistent_volumes=list(site.volumes.items()),
            **memory,
            **common,
        )
    except kubernetes.config.config_exception.ConfigException as error:
        raise EngineFailed(
            f"Kubernetes: {' '.join(str(error).split())}; log in to the cluster first"
        ) from None
    provider.kube_client = PodClient(None if printed else provider.kube_client)
    return provider


def _require_program(name: str, printed: bool) -> None:
    if not printed and shutil.which(name) is None:
        raise MissingDependency(
            f"{name}: not found; run on a machine of the cluster, or look at the job with mlpf site show"
        )


def _end_groups(groups: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to process groups and wait for a limited time for their end."""
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline and any(_lives(group) for group in groups):
        time.sleep(0.05)


def _lives(group: int) -> bool:
    """Return whether a process group has a running process; zombies do not count."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
