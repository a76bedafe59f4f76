"""What a task of Slurm tells Horovod about its rank."""

import pytest

pytest.importorskip("horovod", reason="Horovod is not built: make horovod")

from mlpf.errors import ConfigError
from mlpf.training.loop.slurm_ranks import address_of, rank_variables, slots


def task(**changes):
    """Variables of task 1, the second of its node, on three nodes with two tasks, one and one."""
    variables = {
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "5000",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "0",
        "SLURM_STEP_TASKS_PER_NODE": "2,1(x2)",
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    }
    return variables | changes


def test_ranks_count_node_by_node():
    places = [(slot.rank, slot.hostname, slot.local_rank, slot.local_size) for slot in slots("2,1(x2)")]
    assert places == [(0, "node0", 0, 2), (1, "node0", 1, 2), (2, "node1", 0, 1), (3, "node2", 0, 1)]
    assert [slot.rank for slot in slots("4(x2),3")] == list(range(11))


def test_a_task_takes_its_rank_from_slurm():
    variables = rank_variables(task())
    expected = {
        "HOROVOD_RANK": "1",
        "HOROVOD_SIZE": "4",
        "HOROVOD_LOCAL_RANK": "1",
        "HOROVOD_LOCAL_SIZE": "2",
        # Only the first node has a second task.
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "1",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "5000",
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_CONTROLLER": "gloo",
    }
    assert expected.items() <= variables.items()
    last = rank_variables(task(SLURM_PROCID="3", SLURM_LOCALID="0", SLURM_NODEID="2"))
    assert [last[f"HOROVOD_CROSS_{name}"] for name in ("RANK", "SIZE")] == ["2", "3"]


def test_what_is_set_already_stays():
    given = task(
        NETWORK_INTERFACE="ib0", HOROVOD_GLOO_RENDEZVOUS_ADDR="10.0.0.1", HOROVOD_GLOO_TIMEOUT_SECONDS="7"
    )
    variables = rank_variables(given)
    assert variables["HOROVOD_GLOO_IFACE"] == variables["NCCL_SOCKET_IFNAME"] == "ib0"
    assert variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "10.0.0.1"
    assert variables["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "7"


@pytest.mark.parametrize("missing", ["HOROVOD_GLOO_RENDEZVOUS_PORT", "SLURM_PROCID"])
def test_nothing_is_set_where_the_job_script_did_not_start_it(missing):
    assert rank_variables({k: v for k, v in task().items() if k != missing}) == {}
    assert rank_variables(task(HOROVOD_RANK="0")) == {}


def test_tasks_that_go_round_the_nodes_are_refused():
    with pytest.raises(ConfigError, match=r"task 1 of srun .* --distribution=block"):
        rank_variables(task(SLURM_LOCALID="0", SLURM_NODEID="1"))


def test_an_interface_has_an_address_or_is_named():
    assert address_of("lo") == "127.0.0.1"
    with pytest.raises(ConfigError, match=r"NETWORK_INTERFACE=ib7: no IPv4 address .* one of .*lo"):
        address_of("ib7")
