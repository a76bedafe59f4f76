import os
import stat

import pytest

from mlpf.errors import ConfigError
from mlpf.machine import allocation as resources
from mlpf.machine.allocation import device_groups, parse_nvidia_smi, usable_cores, visible_gpus

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb)
"""
SLICED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111)
  MIG 1g.10gb     Device  1: (UUID: MIG-2222)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb)
"""
ALL = (*resources._INNER, *resources._OUTER, *resources._HABANA)


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No variable, no tool of a driver, no device file; eight cores."""
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(resources, "hardware", lambda: {})
    monkeypatch.setattr(resources, "usable_cores", lambda: list(range(8)))


def tool(folder, name, text, code=0):
    path = folder / name
    path.write_text(
        f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <<'EOF'\n{text}EOF\nexit {code}\n",
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def shown(groups, name="CUDA_VISIBLE_DEVICES"):
    return [group.environment.get(name) for group in groups]


@pytest.mark.parametrize(
    ("name", "value", "gpus", "expected"),
    [
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3", 2, ["0,1", "2,3"]),
        ("CUDA_VISIBLE_DEVICES", "4,7", 1, ["4", "7"]),
        ("CUDA_VISIBLE_DEVICES", "MIG-1111, MIG-2222", 1, ["MIG-1111", "MIG-2222"]),
        ("CUDA_VISIBLE_DEVICES", "GPU-aaaa,GPU-bbbb", 1, ["GPU-aaaa", "GPU-bbbb"]),
        ("HIP_VISIBLE_DEVICES", "1,3", 1, ["1", "3"]),
        ("ROCR_VISIBLE_DEVICES", "0,1", 1, ["0", "1"]),
        ("HABANA_VISIBLE_MODULES", "0,1,2,3", 2, ["0,1", "2,3"]),
    ],
)
def test_groups_of_what_the_environment_names(monkeypatch, name, value, gpus, expected):
    monkeypatch.setenv(name, value)
    groups = device_groups(2, gpus, None)
    assert shown(groups, name) == expected
    assert [group.num_gpus for group in groups] == [gpus, gpus]


def test_one_worker_per_group_is_the_default(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert shown(device_groups(None, None, None)) == ["0", "1", "2", "3", "4"]
    assert shown(device_groups(None, 2, None)) == ["0,1", "2,3"]
    assert len(device_groups(None, 0, None)) == 1


def test_a_worker_without_gpu_takes_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (group,) = device_groups(1, 0, None)
    assert group.environment["CUDA_VISIBLE_DEVICES"] == ""
    assert group.environment["HIP_VISIBLE_DEVICES"] == ""


def test_without_gpus_a_trial_runs_on_cores():
    groups = device_groups(2, None, None)
    assert shown(groups) == ["", ""]
    assert [group.num_gpus for group in groups] == [0, 0]


def test_an_inner_variable_goes_before_the_one_around_it(monkeypatch):
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    groups = device_groups(2, 1, None)
    assert shown(groups) == ["0", "1"]
    assert shown(groups, "ROCR_VISIBLE_DEVICES") == [None, None]  # inherited as it is


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_not_there(monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == {"CUDA_VISIBLE_DEVICES": []}
    with pytest.raises(ConfigError, match=f"need 1 GPUs, this machine shows 0.*CUDA_VISIBLE_DEVICES={value}"):
        device_groups(1, 1, None)


def test_entries_behind_one_that_is_none_do_not_count(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,-1,2")
    assert visible_gpus() == {"CUDA_VISIBLE_DEVICES": ["0", "1"]}


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(ConfigError, match=r"2 worker\(s\) with 2 GPU\(s\) each need 4 GPUs"):
        device_groups(2, 2, None)


def test_drivers_are_asked_without_a_variable(tmp_path):
    tool(tmp_path, "nvidia-smi", LISTED)
    assert shown(device_groups(2, None, None)) == ["0", "1"]


def test_a_tool_without_driver_lists_nothing(tmp_path):
    tool(tmp_path, "nvidia-smi", "NVIDIA-SMI has failed\n", code=9)
    assert visible_gpus() == {}


def test_amd_gpus_are_listed(tmp_path):
    tool(
        tmp_path, "rocm-smi", "GPU[0]\t\t: Device ID: 0x74a1\nGPU[0]\t\t: GUID: 1\nGPU[1]\t\t: Device ID: 2\n"
    )
    assert shown(device_groups(2, None, None), "HIP_VISIBLE_DEVICES") == ["0", "1"]


def test_device_files_are_the_last_resort(monkeypatch):
    monkeypatch.setattr(resources, "hardware", lambda: {"nvidia": 3})
    assert visible_gpus() == {"CUDA_VISIBLE_DEVICES": ["0", "1", "2"]}
    monkeypatch.setattr(resources, "hardware", lambda: {"rocm": 2})
    assert visible_gpus() == {"HIP_VISIBLE_DEVICES": ["0", "1"]}


def test_slices_take_the_place_of_their_gpu():
    assert parse_nvidia_smi(LISTED) == ["0", "1"]
    assert parse_nvidia_smi(SLICED) == ["MIG-1111", "MIG-2222", "GPU-bbbb"]
    assert parse_nvidia_smi("No devices were found\n") == []


@pytest.mark.parametrize(("workers", "cpus", "threads"), [(2, None, 4), (3, None, 2), (1, 3, 3), (8, 1, 1)])
def test_each_worker_has_cores_of_its_own(workers, cpus, threads):
    groups = device_groups(workers, None, cpus)
    assert [group.num_cpus for group in groups] == [threads] * workers
    assert all(len(group.cpus) == threads for group in groups)
    assert len(frozenset().union(*(group.cpus for group in groups))) == threads * workers


def test_more_workers_than_cores_share_them():
    groups = device_groups(10, None, None)
    assert {group.num_cpus for group in groups} == {1}
    assert {group.cpus for group in groups} == {frozenset()}


def test_more_cores_than_there_are():
    with pytest.raises(ConfigError, match=r"3 worker\(s\) with 3 core\(s\) each need 9 cores.* may use 8"):
        device_groups(3, None, 3)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_threads_of_a_core_are_neighbours(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for cpu, (socket, core) in {0: (0, 0), 1: (1, 0), 2: (0, 0), 3: (1, 0)}.items():
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{socket}\n", encoding="utf-8")
        (folder / "core_id").write_text(f"{core}\n", encoding="utf-8")
    assert usable_cores(tmp_path) == [0, 2, 1, 3]
