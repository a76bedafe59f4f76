"""Accelerators, with stand-ins for the devices that this machine does not have."""

from dataclasses import replace

import pytest
import tensorflow as tf

from mlpf.errors import ConfigError
from mlpf.machine import devices, session
from mlpf.machine.host import read_host
from tests.support.child_process import run_code

CUDA_BUILD = {"is_cuda_build": True, "is_rocm_build": False, "cuda_version": "12.5.1", "cudnn_version": "9"}
ROCM_BUILD = {"is_cuda_build": False, "is_rocm_build": True, "rocm_version": "6.4.1"}
CPU_BUILD = {"is_cuda_build": False, "is_rocm_build": False}
CPU = tf.config.PhysicalDevice("/physical_device:CPU:0", "CPU")


def gpu(number):
    return tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU")


@pytest.fixture
def machine(monkeypatch):
    """Make TensorFlow report other devices and another build than it has."""

    def pretend(*physical, build=CUDA_BUILD, model="NVIDIA A100-SXM4-40GB", wheels=()):
        found = [CPU, *physical]

        def listed(device_type=None):
            return [d for d in found if device_type in (None, d.device_type)]

        def details(device):
            if device.device_type != "GPU":
                return {}
            capability = {"compute_capability": (8, 0)} if build["is_cuda_build"] else {}
            return {"device_name": model, **capability}

        monkeypatch.setattr(tf.config, "list_physical_devices", listed)
        monkeypatch.setattr(tf.config, "get_visible_devices", listed)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", details)
        monkeypatch.setattr(devices, "_build_info", lambda: build)
        monkeypatch.setattr(devices, "_installed", lambda package: package in wheels)

    for name in (*devices._VISIBILITY, devices._OWN_GPU):
        monkeypatch.delenv(name, raising=False)
    return pretend


def files_in(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_this_machine_has_a_cpu_with_a_name():
    (cpu,) = [device for device in devices.list_devices() if device.kind == "cpu"]
    assert cpu.tensorflow_name == "CPU:0"
    assert len(cpu.name) > 2


def test_gpus_are_listed_with_names_before_the_cpu(machine):
    machine(gpu(0), gpu(1))
    found = devices.list_devices()
    assert [(d.kind, d.tensorflow_name, d.compute_capability) for d in found[:2]] == [
        ("nvidia", "GPU:0", "8.0"),
        ("nvidia", "GPU:1", "8.0"),
    ]
    assert found[2].kind == "cpu"
    assert devices.accelerators() == found[:2]
    assert devices.describe() == "2 x NVIDIA A100-SXM4-40GB (Nvidia)"


def test_gpus_of_a_rocm_build_are_of_amd(machine):
    machine(gpu(0), build=ROCM_BUILD, model="AMD Instinct MI250X")
    (found,) = devices.accelerators()
    assert (found.kind, found.name, found.compute_capability) == ("rocm", "AMD Instinct MI250X", None)


def test_gaudi_cards_are_accelerators(machine):
    machine(tf.config.PhysicalDevice("/physical_device:HPU:0", "HPU"), build=CPU_BUILD)
    assert devices.describe() == "1 x HPU (Habana Gaudi)"
    assert devices.why_no_accelerator() is None


def test_a_machine_without_gpu_runs_on_its_cpu_and_warns_of_nothing(machine, tmp_path):
    machine()
    assert devices.accelerators() == []
    assert devices.describe().endswith("(CPU)")
    assert devices.why_no_accelerator(tmp_path) is None


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "none", "-1,0", " "])
def test_values_that_hide_all_devices(value):
    assert devices.hides_all(value)


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "3",
        "0,1",
        "0,-1",
        "GPU-4b2c1a9f-8d3e-6f7a-b5c9-2e4d8a1f6c3b",
        "MIG-1f6c3b2e-8d3e-6f7a-b5c9-2e4d8a1f6c3b",
        "MIG-GPU-4b2c1a9f-8d3e-6f7a-b5c9-2e4d8a1f6c3b/1/0",
    ],
)
def test_numbers_uuids_and_mig_slices_leave_a_device(value):
    assert not devices.hides_all(value)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (CUDA_BUILD, "CUDA_VISIBLE_DEVICES"),
        (ROCM_BUILD, "HIP_VISIBLE_DEVICES"),
        (ROCM_BUILD, "ROCR_VISIBLE_DEVICES"),
        (ROCM_BUILD, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_variable_that_hides_all_gpus_is_named(machine, monkeypatch, tmp_path, build, name):
    machine(build=build)
    monkeypatch.setenv(name, "")
    assert devices.why_no_accelerator(tmp_path) == f"{name}='' hides all GPUs; running on CPU"
    assert devices.visibility() == {name: ""}


def test_a_variable_of_the_other_vendor_hides_nothing(machine, monkeypatch, tmp_path):
    machine()
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "")
    assert devices.why_no_accelerator(tmp_path) is None


def test_variables_do_not_matter_where_a_gpu_is_found(machine, monkeypatch):
    machine(gpu(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1f6c3b2e")
    assert devices.why_no_accelerator() is None


def test_hardware_is_read_from_the_files_of_the_operating_system(tmp_path):
    assert devices.hardware(tmp_path) == {}
    files_in(tmp_path, "dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/dri/renderD128")
    assert devices.hardware(tmp_path) == {"nvidia": 2}
    files_in(tmp_path, "dev/kfd", "sys/bus/pci/drivers/habanalabs/0000:19:00.0")
    assert devices.hardware(tmp_path) == {"nvidia": 2, "rocm": 1, "hpu": 1}


@pytest.mark.parametrize(
    ("build", "files", "wheels", "words"),
    [
        (
            CUDA_BUILD,
            ["dev/nvidia0"],
            [],
            ["1 Nvidia", "finds no device or libraries (CUDA)", "[and-cuda]=="],
        ),
        (CPU_BUILD, ["dev/nvidia0"], [], ["1 Nvidia", "has no support for it (CUDA)"]),
        (
            CUDA_BUILD,
            ["dev/kfd", "dev/dri/renderD128"],
            [],
            ["1 AMD ROCm", "has no support", "tensorflow-rocm"],
        ),
        (CUDA_BUILD, [], ["nvidia-cudnn-cu12"], ["no GPU found", "nvidia-smi"]),
        (ROCM_BUILD, [], [], ["no GPU found", "rocm-smi"]),
        (CUDA_BUILD, ["sys/bus/pci/drivers/habanalabs/0000:19:00.0"], [], ["1 Habana Gaudi", "-g trains"]),
    ],
)
def test_gpus_that_should_be_there_are_explained(machine, tmp_path, build, files, wheels, words):
    machine(build=build, wheels=wheels)
    line = devices.why_no_accelerator(files_in(tmp_path, *files))
    assert "\n" not in line
    assert line.endswith("; running on CPU")
    assert [word for word in words if word not in line] == []


@pytest.fixture
def pinned(monkeypatch):
    calls = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *args: calls.append(args))
    return calls


def test_each_local_rank_takes_its_gpu(machine, pinned):
    machine(gpu(0), gpu(1))
    devices.pin_gpu(1, 2)
    assert pinned == [(gpu(1), "GPU")]


def test_without_gpus_there_is_nothing_to_pin(machine, pinned):
    machine()
    devices.pin_gpu(3, 4)
    assert pinned == []


@pytest.mark.parametrize("rank", [0, 2])
def test_more_processes_than_gpus_fail_on_every_rank(machine, monkeypatch, pinned, rank):
    machine(gpu(0), gpu(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(
        ConfigError, match=r"3 processes on .* sees 2 GPU\(s\) there \(CUDA_VISIBLE_DEVICES=0,1\)"
    ):
        devices.pin_gpu(rank, 3)
    assert pinned == []


def test_one_gpu_per_task_of_slurm_is_number_zero_for_every_task(machine, monkeypatch, pinned):
    machine(gpu(0))
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    devices.pin_gpu(3, 4)
    assert pinned == [(gpu(0), "GPU")]


@pytest.fixture
def _restore_tf32():
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.usefixtures("_restore_tf32")
@pytest.mark.parametrize("allowed", [False, True])
def test_the_switch_of_tf32_reaches_tensorflow_and_the_report(allowed):
    devices.allow_tf32(allowed)
    assert tf.config.experimental.tensor_float_32_execution_enabled() == allowed
    assert devices.report()["tf32"] == allowed


def test_memory_grows_on_every_gpu(machine, monkeypatch):
    machine(gpu(0), gpu(1))
    grown = []
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *args: grown.append(args))
    devices.grow_gpu_memory()
    assert grown == [(gpu(0), True), (gpu(1), True)]


def test_the_report_is_plain_data_with_build_and_variables(machine, monkeypatch):
    machine(gpu(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-4b2c1a9f")
    report = devices.report()
    assert report["devices"][0] == {
        "name": "GPU:0",
        "kind": "nvidia",
        "model": "NVIDIA A100-SXM4-40GB",
        "compute_capability": "8.0",
    }
    assert report["visible_devices"] == {"CUDA_VISIBLE_DEVICES": "GPU-4b2c1a9f"}
    assert report["tensorflow_build"] == {"version": tf.__version__, **CUDA_BUILD}


def test_the_build_is_read_without_tensorflow_as_tensorflow_tells_it(repo_root):
    code = "import json, sys; from mlpf.machine import devices\n"
    code += "print(json.dumps([devices.build(), 'tensorflow' in sys.modules]))"
    build, loaded = run_code(repo_root, code)
    told = tf.sysconfig.get_build_info()
    assert build["version"] == tf.__version__
    assert {name: told[name] for name in build if name != "version"} == {
        name: value for name, value in build.items() if name != "version"
    }
    assert not loaded


def test_the_report_says_what_steers_onednn(machine, monkeypatch):
    for name in devices._ONEDNN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    machine()
    assert list(devices.report()["onednn"]) == ["enabled"]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert devices.report()["onednn"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert isinstance(devices.report()["onednn"]["enabled"], bool)


def cpu_with(root, flags):
    (root / "proc").mkdir(exist_ok=True)
    text = f"model name : Some CPU\nflags : {flags}\n"
    (root / "proc" / "cpuinfo").write_text(text, encoding="utf-8")
    return root


def test_bfloat16_without_instructions_for_it_is_told(machine, tmp_path):
    machine()
    line = devices.why_bfloat16_is_slow("mixed_bfloat16", cpu_with(tmp_path, "avx2"))
    assert line.startswith("setup.dtype: mixed_bfloat16 is slower than float32 here")
    assert "Some CPU has no instructions for bfloat16" in line
    assert "\n" not in line


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_other_formats_are_not_told(machine, tmp_path, dtype):
    machine()
    assert devices.why_bfloat16_is_slow(dtype, cpu_with(tmp_path, "avx2")) is None


@pytest.mark.parametrize("flags", ["avx512f avx512_bf16", "avx2 amx_bf16"])
def test_bfloat16_with_instructions_for_it_is_not_told(machine, tmp_path, flags):
    machine()
    assert devices.why_bfloat16_is_slow("mixed_bfloat16", cpu_with(tmp_path, flags)) is None


def test_bfloat16_on_a_cpu_that_tells_nothing_is_not_told(machine, tmp_path):
    machine()
    assert devices.why_bfloat16_is_slow("mixed_bfloat16", tmp_path) is None


def test_bfloat16_on_a_gpu_is_not_told_whatever_the_cpu(machine, tmp_path):
    machine(gpu(0))
    assert devices.why_bfloat16_is_slow("mixed_bfloat16", cpu_with(tmp_path, "avx2")) is None


def test_the_cpu_is_called_as_the_machine_is(machine):
    machine()
    assert devices.describe() == f"1 x {read_host().cpu} (CPU)"


@pytest.fixture
def _onednn(monkeypatch):
    """TensorFlow computes with oneDNN on a CPU with AVX-512, and no variable is set."""
    for name in devices._ONEDNN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "_onednn_enabled", lambda: True)
    host = replace(read_host(), instruction_sets=("AVX2", "AVX-512"))
    monkeypatch.setattr(devices, "read_host", lambda *_: host)


@pytest.mark.usefixtures("_onednn")
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_bfloat16_is_refused_where_onednn_may_not_use_avx512(machine, monkeypatch, name):
    machine()
    assert devices.why_bfloat16_aborts("mixed_bfloat16") is None
    monkeypatch.setenv(name, "avx2")
    with pytest.raises(
        ConfigError, match=rf"setup\.dtype: mixed_bfloat16 does not go with {name}=avx2: .*abort"
    ):
        session.set_dtype_policy("mixed_bfloat16")
    assert devices.why_bfloat16_aborts("float32") is None
    monkeypatch.setenv(name, "AVX512_CORE")
    assert devices.why_bfloat16_aborts("mixed_bfloat16") is None


@pytest.mark.usefixtures("_onednn")
def test_bfloat16_is_not_refused_where_onednn_does_not_compute(machine, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    machine(gpu(0))
    assert devices.why_bfloat16_aborts("mixed_bfloat16") is None
    machine()
    host = replace(read_host(), instruction_sets=("AVX2",))
    monkeypatch.setattr(devices, "read_host", lambda *_: host)
    assert devices.why_bfloat16_aborts("mixed_bfloat16") is None
    monkeypatch.setattr(devices, "_onednn_enabled", lambda: False)
    assert devices.why_bfloat16_aborts("mixed_bfloat16") is None


PRODUCT = """
import json
import tensorflow as tf
from mlpf.machine.devices import why_bfloat16_aborts
line = why_bfloat16_aborts("mixed_bfloat16")
a = tf.ones([64, 64], tf.bfloat16 if line is None else tf.float32)
print(json.dumps(float(tf.matmul(a, a)[0, 0])))
"""


@pytest.mark.parametrize("most", ["ALL", "AVX2"])
def test_what_is_not_refused_computes_on_this_machine(monkeypatch, repo_root, most):
    """In a process of its own: where the answer is wrong, TensorFlow ends it."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert run_code(repo_root, PRODUCT) == 64.0
