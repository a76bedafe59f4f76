"""Make Parsl's executor and provider for a site, and the text of the job that they submit."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.launchers import SingleNodeLauncher
from parsl.providers import KubernetesProvider, LocalProvider

import mlpf
from mlpf.engine.base import PILOT_END_VARIABLE, Slot
from mlpf.engine.parsl import interchange
from mlpf.engine.parsl.providers import LABEL, LocalGroups, make_provider
from mlpf.engine.sites import Site, job_seconds, slots_per_node
from mlpf.errors import ConfigError

# A node or the driver counts as lost after this time without a message.
HEARTBEAT_SECONDS = 2
LOST_SECONDS = 20

# Interval of idle checks; messages are handled at once.
_POLL_MILLISECONDS = 500
_COMMAND_SECONDS = 60
_LOOPBACK = "127.0.0.1"
# Characters allowed in paths: Parsl's job scripts do not quote them.
_UNSAFE = set(" \t\n'\"\\%{}$`;&|<>()*?")


def make_executor(
    site: Site,
    nodes: int,
    *,
    run_dir: Path,
    slot: Slot,
    inside_allocation: bool = False,
    printed: bool = False,
) -> HighThroughputExecutor:
    """Return the executor of a site, not started.

    Args:
        site: the site.
        nodes: number of nodes.
        run_dir: folder for all files of the engine, visible on all nodes.
        slot: what each task may use.
        inside_allocation: use the nodes of the Slurm job that this process runs in.
        printed: only print the job; nothing will be submitted.

    Raises:
        ConfigError: the nodes of the site are too small.
        MissingDependency: a program or package of the provider is missing.
    """
    if set(str(run_dir)) & _UNSAFE:
        raise ConfigError(
            f"{run_dir}: job scripts need paths without spaces, quotes and signs such as $; use another one"
        )
    if inside_allocation:
        _require_allocation(site, nodes)
        provider: Any = LocalGroups(
            launcher=SingleNodeLauncher(debug=False), worker_init=_setup(site, _end_of_allocation())
        )
    else:
        provider = make_provider(site, nodes, _setup(site, None), printed)
    address, addresses = (None, {"DRIVER"}) if printed else _addresses(site, inside_allocation)
    executor = HighThroughputExecutor(
        label=LABEL,
        provider=provider,
        launch_cmd=DEFAULT_LAUNCH_CMD.replace(
            "process_worker_pool.py", _pilot(site, nodes, run_dir, slot), 1
        ),
        interchange_launch_cmd=[
            *(sys.executable, "-P", interchange.__file__),
            *(str(os.getpid()), str(run_dir / "interchange.out")),
        ],
        address=_LOOPBACK,  # replaced below; without it, Parsl would ask a web service
        max_workers_per_node=slots_per_node(site, slot),
        prefetch_capacity=0,
        heartbeat_period=HEARTBEAT_SECONDS,
        heartbeat_threshold=LOST_SECONDS,
        poll_period=_POLL_MILLISECONDS,
        encrypted=True,
    )
    executor.address, executor.all_addresses = address, addresses
    executor.run_dir = str(run_dir)
    executor.run_id = run_dir.name
    provider.script_dir = str(run_dir / "jobs")
    return executor


def pilot_command(
    executor: HighThroughputExecutor, site: Site, block: str, node: int, inside_allocation: bool
) -> str:
    """Return what a pilot job runs.

    Args:
        executor: started.
        site: its site.
        block: id of the pilot job.
        node: number of the node in the allocation.
        inside_allocation: start it there with srun.
    """
    command = executor.launch_cmd.format(block_id=block)
    if not inside_allocation:
        return command
    # One job step per node: if a node fails, only its own workers are lost.
    return (
        f"srun --overlap --nodes=1 --ntasks=1 --relative={node} --cpus-per-task={site.num_cores} "
        f"{site.srun_options} {command}"
    )


def words_of(error: Exception) -> str:
    """Return the message of a scheduler that refused a job, in one line."""
    said = getattr(error, "stderr", None) or str(error)
    return " ".join(said.split())


def job_text(site: Site, nodes: int, *, slot: Slot, inside_allocation: bool = False) -> str:
    """Return Parsl's configuration and the job that it would submit, as text. Submits nothing.

    Raises:
        ConfigError: the nodes of the site are too small.
        MissingDependency: a package of the provider is missing.
    """
    with tempfile.TemporaryDirectory(prefix="mlpf-site-") as folder:
        run_dir = Path(folder)
        (run_dir / "jobs").mkdir()
        executor = make_executor(
            *(site, nodes), run_dir=run_dir, slot=slot, inside_allocation=inside_allocation, printed=True
        )
        # Chosen again at every start.
        for name, value in {"worker_port": "PORT", "cert_dir": f"{folder}/certificates"}.items():
            executor.launch_cmd = executor.launch_cmd.replace(f"{{{name}}}", value)
        vars(executor)["logconf_path"] = None
        configuration = repr(executor)
        executor.initialize_scaling()
        command = pilot_command(executor, site, "0", 0, inside_allocation)
        text = _submitted(executor.provider, command, run_dir / "jobs")
    return f"{configuration}\n\n{text.strip()}\n".replace(folder, "RUN_DIR").replace("_Printed", "")


def _submitted(provider: Any, command: str, folder: Path) -> str:
    if isinstance(provider, LocalProvider):
        return f"{provider.worker_init}\n{provider.launcher(command, 1, 1, str(folder))}"
    provider.submit(command, 1, f"{LABEL}-0")
    if isinstance(provider, KubernetesProvider):
        import yaml
        from kubernetes import client

        return str(yaml.safe_dump(client.ApiClient().sanitize_for_serialization(provider.kube_client.pod)))
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.iterdir(), reverse=True))


def _pilot(site: Site, nodes: int, run_dir: Path, slot: Slot) -> str:
    """Return the program of a pilot job with its options; the options of Parsl's pool follow."""
    words = [_python(site, run_dir), f"-m mlpf.engine.parsl.pilot --slots {slots_per_node(site, slot)}"]
    words.append(f"--cpus {slot.num_cpus} --gpus {slot.num_gpus} --cores {site.num_cores}")
    words.append(f"--margin {60 * site.stop_margin}")
    if site.provider == "local" and nodes > 1:
        words.append("--unbound")  # "nodes" that share the cores of this machine
    return " ".join([*words, "--"])


def _setup(site: Site, end: float | None) -> str:
    """Return the shell lines before the pilot program.

    Args:
        site: the site.
        end: end of the allocation, Unix time in s; None = ``max_minutes`` of the site after the start.
    """
    seconds = job_seconds(site)
    lines = []
    if end is not None:
        lines.append(f"export {PILOT_END_VARIABLE}={end:.0f}")
    elif seconds is not None:
        # First line, so that the job has just begun. Only new versions of Slurm tell the end of a job.
        lines.append(f"export {PILOT_END_VARIABLE}=$(($(date +%s) + {seconds}))")
    lines += site.setup
    if not site.container:
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        # The package of this process, installed or not, and its PYTHONPATH.
        own = Path(mlpf.__file__).resolve().parents[1]
        folders = [str(own)] if own.name != "site-packages" else []
        folders += os.environ.get("PYTHONPATH", "").split(os.pathsep)
        text = os.pathsep.join(dict.fromkeys(filter(None, folders)))
        if text:
            lines.append(f"export PYTHONPATH={shlex.quote(text)}")
    return "\n".join(lines) + "\n"


def _python(site: Site, run_dir: Path) -> str:
    """Return the command that starts Python on a node. With a full path it needs no activated environment."""
    if not site.container:
        return sys.executable
    if site.provider == "kubernetes":
        return "python3"
    return f"apptainer exec --bind {run_dir} {site.container_options} {site.container} python3"


def _addresses(site: Site, inside_allocation: bool) -> tuple[str | None, set[str]]:
    """Return the address on which the interchange listens (None = all), and that which nodes connect to."""
    if site.provider == "local" and not inside_allocation:
        return _LOOPBACK, {_LOOPBACK}
    there = _interfaces()
    where = site.network_interface or f"this host's name with {site.host_suffix}"
    one: str | None = site.address
    try:
        if site.network_interface:
            one = there[site.network_interface][0]
        elif site.host_suffix:
            one = socket.gethostbyname(socket.gethostname().partition(".")[0] + site.host_suffix)
    except (OSError, LookupError):
        raise ConfigError(
            f"{site.description}: {where}: no IPv4 address; run on a machine of the site, or correct "
            "network_interface, host_suffix or address"
        ) from None
    if one:
        return one, {one}
    return None, {address for addresses in there.values() for address in addresses}


def _interfaces() -> dict[str, list[str]]:
    """Return interface -> its IPv4 addresses."""
    found = psutil.net_if_addrs().items()
    return {name: [a.address for a in all_ if a.family == socket.AF_INET] for name, all_ in found}


def _require_allocation(site: Site, nodes: int) -> None:
    there = os.environ.get("SLURM_JOB_NUM_NODES")
    if site.provider != "slurm" or there is None:
        raise ConfigError(
            "inside an allocation: this is no job of Slurm; start it with sbatch, site of provider slurm"
        )
    if nodes > int(there):
        raise ConfigError(f"{nodes} node(s): the job has {there}; ask for fewer")


def _end_of_allocation() -> float | None:
    """Return the end of the Slurm job that this process runs in, Unix time in s; None if unknown."""
    for name in (PILOT_END_VARIABLE, "SLURM_JOB_END_TIME"):
        if os.environ.get(name, "").isdecimal():
            return float(os.environ[name])
    done = subprocess.run(
        ["squeue", "--noheader", "--format=%e", f"--jobs={os.environ['SLURM_JOB_ID']}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
    )
    try:
        return datetime.fromisoformat(done.stdout.strip()).timestamp()
    except ValueError:
        return None
