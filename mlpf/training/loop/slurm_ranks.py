"""Start the ranks of Horovod as tasks of ``srun``. Unlike ``horovodrun``, this needs no ssh between nodes.

A job script starts ``python -m mlpf.training.loop.slurm_ranks`` on its first node. This program serves the
addresses of the ranks (Horovod's rendezvous over Gloo) until its standard input is closed. It prints the
environment variables with which the script starts ``srun mlpf train -m ...``. Each task takes its rank from
the variables of Slurm.
"""

import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import Any

from mlpf.errors import ConfigError

ADDRESS = "HOROVOD_GLOO_RENDEZVOUS_ADDR"
PORT = "HOROVOD_GLOO_RENDEZVOUS_PORT"
INTERFACE = "NETWORK_INTERFACE"
# Time for all ranks to connect. Horovod's 30 s are too short if Python is read from a file server.
_TIMEOUT_SECONDS = 300


def slots(tasks_per_node: str) -> list[Any]:
    """Return node and number of each rank in Horovod's form (``SlotInfo``).

    Args:
        tasks_per_node: Slurm's description, such as ``4(x2),3``; ranks are numbered node by node.
    """
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments

    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks_per_node):
        counts += [int(count)] * int(times or 1)
    # Horovod only compares the names of hosts.
    hosts = [HostInfo(f"node{number}", count) for number, count in enumerate(counts)]
    return get_host_assignments(hosts, sum(counts))


def rank_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that Horovod needs in a task of ``srun``.

    Empty if ``horovodrun`` has set them, or if no server for ranks was started.

    Raises:
        ConfigError: tasks are not numbered node by node, or there is no such network interface.
    """
    if "HOROVOD_RANK" in environment or PORT not in environment or "SLURM_PROCID" not in environment:
        return {}
    from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars

    rank, node = int(environment["SLURM_PROCID"]), environment["SLURM_NODEID"]
    slot = slots(environment["SLURM_STEP_TASKS_PER_NODE"])[rank]
    if slot.hostname != f"node{node}" or slot.local_rank != int(environment["SLURM_LOCALID"]):
        raise ConfigError(
            f"task {rank} of srun runs on node {node} of the job, where Horovod does not count it; "
            "start srun with --distribution=block"
        )
    # Address of the node where srun runs, seen from this node.
    address = environment.get(ADDRESS) or environment["SLURM_LAUNCH_NODE_IPADDR"]
    interface = environment.get(INTERFACE) or _interface_towards(address)
    given = {"HOROVOD_GLOO_TIMEOUT_SECONDS": str(_TIMEOUT_SECONDS), **environment}
    variables = {
        **create_slot_env_vars(slot),
        **create_run_env_vars(address, [interface], environment[PORT]),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": given["HOROVOD_GLOO_TIMEOUT_SECONDS"],
    }
    return {name: str(value) for name, value in variables.items()}


def address_of(interface: str) -> str:
    """Return the IPv4 address of a network interface of this machine.

    Raises:
        ConfigError: there is no such interface, or it has no such address.
    """
    found = _addresses()
    for address, name in found.items():
        if name == interface:
            return address
    names = ", ".join(sorted(set(found.values())))
    raise ConfigError(
        f"{INTERFACE}={interface}: no IPv4 address on {socket.gethostname()}; give one of {names}"
    )


def _interface_towards(address: str) -> str:
    """Return the network interface through which this machine reaches an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # UDP: selects the interface without sending anything
        own = probe.getsockname()[0]
    return _addresses()[own]


def _addresses() -> dict[str, str]:
    """Return IPv4 address -> name of the interface."""
    import psutil  # comes with Horovod

    return {
        entry.address: name
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    }


def main() -> None:
    """Serve the addresses of the ranks of this job until standard input is closed."""
    try:
        from horovod.runner.http.http_server import RendezvousServer
    except ImportError as error:
        sys.exit(
            f"error: several tasks train together with Horovod, which is missing ({error}); run make horovod"
        )
    variables = {}
    try:
        if interface := os.environ.get(INTERFACE):
            variables[ADDRESS] = address_of(interface)
    except ConfigError as error:
        sys.exit(f"error: {error}")
    server = RendezvousServer()
    variables[PORT] = str(server.start())
    server.init(slots(os.environ["SLURM_TASKS_PER_NODE"]))
    sys.stdout.write(" ".join(f"{name}={value}" for name, value in variables.items()) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
