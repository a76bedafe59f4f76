import importlib.util
import json
import re
import subprocess

import pytest
import yaml

from mlpf.engine.base import Slot
from mlpf.engine.parsl.configuration import job_text, make_executor
from mlpf.engine.sites import load_site
from mlpf.errors import ConfigError, MissingDependency

SLURM = """\
description: a cluster
provider: slurm
cores_per_node: 8
gpus_per_node: 4
memory_per_node: 100
max_minutes: 90
stop_margin: 7
partition: fast
account: abc
qos: high
constraint: a100
scheduler_lines: [--mail-type=NONE]
srun_options: --cpu-bind=none
setup: [module load python]
"""

# Commands of a submit file that HTCondor's own parser takes.
CONDOR_COMMANDS = {
    *("universe", "executable", "arguments", "environment", "input", "output", "error", "log", "queue"),
    *("should_transfer_files", "when_to_transfer_output", "transfer_executable", "transfer_input_files"),
    *("requirements", "request_cpus", "request_memory", "request_gpus", "request_disk", "machine_count"),
    *("leave_in_queue", "periodic_remove", "accounting_group", "requestcpus", "requestmemory"),
}


def site(folder, text):
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return load_site(path)


def script_of(text):
    return text[text.index("#!/bin/bash") :]


class TestSlurm:
    def options(self, folder, more="", nodes=2):
        text = job_text(site(folder, SLURM + more), nodes, slot=Slot(2, 1))
        return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE)), text

    def test_asks_for_what_the_site_says(self, tmp_path):
        options, text = self.options(tmp_path)
        wanted = {
            "nodes": "1",
            "time": "90",
            "ntasks-per-node": "1",
            "cpus-per-task": "8",
            "gpus-per-node": "4",
            "mem": "100g",
            "partition": "fast",
            "account": "abc",
            "qos": "high",
            "constraint": "a100",
            "mail-type": "NONE",
            "exclusive": "",
            "no-requeue": "",
        }
        assert wanted.items() <= options.items()
        assert "init_blocks=2" in text
        assert "encrypted=True" in text

    def test_gpus_are_asked_for_in_the_way_of_the_site(self, tmp_path):
        options, _ = self.options(tmp_path, "gpu_request: gres\n")
        assert options["gres"] == "gpu:4"
        assert "gpus-per-node" not in options
        options, _ = self.options(tmp_path, "gpu_request: none\n")
        assert not {"gres", "gpus-per-node"} & options.keys()

    def test_several_nodes_of_one_job(self, tmp_path):
        options, text = self.options(tmp_path, "nodes_per_job: 2\n", nodes=4)
        assert options["nodes"] == "2"
        assert "srun --ntasks 2 " in text
        with pytest.raises(ConfigError, match="ask for a multiple"):
            self.options(tmp_path, "nodes_per_job: 2\n", nodes=3)

    def test_script_is_one(self, tmp_path):
        script = script_of(self.options(tmp_path)[1])
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        # Before anything that takes time: the job has begun.
        first = next(line for line in script.splitlines() if line and not line.startswith("#"))
        assert first == "export MLPF_PILOT_END=$(($(date +%s) + 5400))"
        assert script.index("module load python") < script.index("mlpf.engine.parsl.pilot")

    def test_slots_and_margin_reach_the_pilot(self, tmp_path):
        assert "--slots 4 --cpus 2 --gpus 1 --cores 8 --margin 420 --" in self.options(tmp_path)[1]

    def test_inside_an_allocation_each_node_is_a_step(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "1")
        monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
        monkeypatch.setenv("MLPF_PILOT_END", "1234567890")
        one = site(tmp_path, SLURM)
        text = job_text(one, 2, slot=Slot(), inside_allocation=True)
        assert "srun --overlap --nodes=1 --ntasks=1 --relative=0 --cpus-per-task=8 --cpu-bind=none" in text
        assert "export MLPF_PILOT_END=1234567890\n" in text
        with pytest.raises(ConfigError, match=r"3 node\(s\): the job has 2"):
            job_text(one, 3, slot=Slot(), inside_allocation=True)
        monkeypatch.delenv("SLURM_JOB_NUM_NODES")
        with pytest.raises(ConfigError, match="no job of Slurm"):
            job_text(one, 2, slot=Slot(), inside_allocation=True)

    def test_container_runs_the_worker(self, tmp_path):
        text = self.options(tmp_path, "container: /images/mlpf.sif\ncontainer_options: --nv\n")[1]
        pilot = "python3 -m mlpf.engine.parsl.pilot"
        assert f"apptainer exec --bind RUN_DIR --nv /images/mlpf.sif {pilot}" in text
        assert "export PATH" not in text

    def test_account_must_be_there_if_the_site_says_so(self, tmp_path):
        text = SLURM.replace("account: abc\n", "account_required: true\n")
        with pytest.raises(ConfigError, match="needs the account that pays"):
            job_text(site(tmp_path, text), 1, slot=Slot())

    def test_sbatch_must_be_there(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingDependency, match="sbatch: not found"):
            make_executor(site(tmp_path, SLURM), 1, run_dir=tmp_path, slot=Slot())


def test_paths_that_a_script_cannot_hold_are_refused(tmp_path):
    folder = tmp_path / "with space"
    with pytest.raises(ConfigError, match="without spaces"):
        make_executor(load_site("this-machine"), 1, run_dir=folder, slot=Slot())


@pytest.mark.parametrize(
    ("key", "value"), [("network_interface", "nosuch0"), ("host_suffix", ".no-such-host.invalid")]
)
def test_address_that_is_not_there_is_named(tmp_path, key, value, monkeypatch):
    (tmp_path / "sbatch").write_text("", encoding="utf-8")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ConfigError, match="no IPv4 address"):
        make_executor(site(tmp_path, SLURM + f"{key}: {value}\n"), 1, run_dir=tmp_path, slot=Slot())


def test_network_interface_gives_its_address(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("", encoding="utf-8")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    one = make_executor(site(tmp_path, SLURM + "network_interface: lo\n"), 1, run_dir=tmp_path, slot=Slot())
    assert one.address == "127.0.0.1"
    assert one.all_addresses == {"127.0.0.1"}


def test_htcondor_submit_file_has_known_commands_only(tmp_path):
    text = (
        "description: a pool\nprovider: htcondor\ncores_per_node: 4\ngpus_per_node: 1\nmemory_per_node: 16\n"
        "max_minutes: 60\naccount: cms\nscheduler_lines: [request_disk = 10 GB]\n"
        "requirements: (OpSysMajorVer >= 9)\n"
    )
    printed = job_text(site(tmp_path, text), 3, slot=Slot(1, 1))
    submit = printed[printed.index("universe ") : printed.index("\nqueue\n") + 7]
    lines = [line for line in submit.splitlines() if line.strip()]
    assert lines[-1] == "queue"
    # The last of two equal commands counts.
    commands = {}
    for line in lines[:-1]:
        name, equals, value = line.partition("=")
        assert equals, line
        commands[name.strip().lower()] = value.strip()
    assert {name for name in commands if not name.startswith("+")} <= CONDOR_COMMANDS
    assert commands["universe"] == "vanilla"
    assert commands["requestcpus"] == "4"
    assert commands["requestmemory"] == str(16 * 1024)  # MiB
    assert commands["request_gpus"] == "1"
    assert commands["accounting_group"] == "cms"
    assert commands["requirements"] == "(OpSysMajorVer >= 9)"
    assert commands["periodic_remove"] == "(JobStatus == 2) && (time() - EnteredCurrentStatus > 3600)"
    assert commands["leave_in_queue"] != "TRUE"
    assert commands["+projectname"] == '"mlpf"'
    # What runs is transferred under the name that bash gets.
    assert commands["transfer_input_files"].endswith(f"/{commands['arguments']}")
    assert "--slots 1 --cpus 1 --gpus 1 --cores 4" in printed


class TestKubernetes:
    TEXT = (
        "description: pods\nprovider: kubernetes\ncontainer: registry/mlpf:1\nnamespace: physics\n"
        "cores_per_node: 4\ngpus_per_node: 1\nmemory_per_node: 16\nvolumes: {claim: /data}\n"
    )

    @pytest.fixture
    def pod(self, tmp_path, monkeypatch):
        pytest.importorskip("kubernetes", reason="needs the extra kubernetes")
        from kubernetes.config import kube_config

        access = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "a", "user": {"token": "none"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
        (tmp_path / "access.yaml").write_text(yaml.safe_dump(access), encoding="utf-8")
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "access.yaml"))
        text = job_text(site(tmp_path, self.TEXT), 2, slot=Slot(1, 1))
        return yaml.safe_load(text[text.index("\n\n") :])

    def test_pod_reads_back_as_the_classes_of_the_client(self, pod):
        from kubernetes import client

        # Raises on values of a wrong type, and on what a pod must have.
        read = client.ApiClient().deserialize(json.dumps(pod), "V1Pod", "application/json")
        assert read.spec.restart_policy == "Never"
        (container,) = read.spec.containers
        assert container.image == "registry/mlpf:1"
        wanted = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
        assert container.resources.limits == container.resources.requests == wanted
        assert container.volume_mounts[0].mount_path == "/data"
        assert "python3 -m mlpf.engine.parsl.pilot --slots 1 --cpus 1 --gpus 1" in container.args[1]

    def test_nothing_is_lost_on_the_way(self, pod):
        from kubernetes import client

        names = set(client.V1PodSpec.attribute_map.values())
        assert pod["spec"].keys() <= names
        assert pod["spec"]["containers"][0].keys() <= set(client.V1Container.attribute_map.values())

    def test_client_that_is_not_installed_is_named(self, tmp_path):
        if importlib.util.find_spec("kubernetes") is not None:
            pytest.skip("it is installed")
        with pytest.raises(MissingDependency, match=r"pip install -e '\.\[cluster,kubernetes\]'"):
            job_text(site(tmp_path, self.TEXT), 1, slot=Slot())
