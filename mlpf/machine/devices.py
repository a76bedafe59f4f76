"""Accelerators: which ones TensorFlow sees, why it does not see others, and how a process selects one."""

import os
import platform
import runpy
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mlpf.errors import ConfigError
from mlpf.machine.host import read_host

Kind = Literal["nvidia", "rocm", "hpu", "cpu"]

# Read by the drivers. Devices that they hide do not exist for TensorFlow.
_VISIBILITY: dict[str, Kind] = {
    "CUDA_VISIBLE_DEVICES": "nvidia",
    "HIP_VISIBLE_DEVICES": "rocm",
    "ROCR_VISIBLE_DEVICES": "rocm",
    "GPU_DEVICE_ORDINAL": "rocm",
    "HABANA_VISIBLE_DEVICES": "hpu",
    "HABANA_VISIBLE_MODULES": "hpu",
}
_KIND_NAMES: dict[Kind, str] = {"nvidia": "Nvidia", "rocm": "AMD ROCm", "hpu": "Habana Gaudi", "cpu": "CPU"}
# Set by Slurm if srun gives each task its own GPU. Every task sees its GPU as number 0.
_OWN_GPU = "SLURM_GPUS_PER_TASK"
# Newest instruction set that oneDNN may use. The first variable that is set counts.
_MOST_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# The first tells TensorFlow whether to use oneDNN.
_ONEDNN_VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", *_MOST_ISA)
# Newest instruction sets with which oneDNN has no products of bfloat16.
_NO_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI"}
# Packages that bring the module ``tensorflow``.
_DISTRIBUTIONS = ("tensorflow", "tensorflow-rocm", "tensorflow-cpu", "tensorflow-macos", "intel-tensorflow")


@dataclass(frozen=True)
class Device:
    """A processor that operations can run on.

    Attributes:
        kind: vendor of an accelerator, or ``cpu``.
        tensorflow_name: such as ``GPU:0``.
        name: what the driver calls it.
        compute_capability: of an Nvidia GPU, e.g. ``9.0``.
    """

    kind: Kind
    tensorflow_name: str
    name: str
    compute_capability: str | None = None


def list_devices() -> list[Device]:
    """Return the devices that TensorFlow may use: accelerators first, the CPU last."""
    import tensorflow as tf

    devices = []
    for physical in tf.config.get_visible_devices():
        details = tf.config.experimental.get_device_details(physical)
        capability = details.get("compute_capability")
        devices.append(
            Device(
                kind=_kind(physical.device_type),
                tensorflow_name=physical.name.removeprefix("/physical_device:"),
                name=details.get("device_name") or _plain_name(physical.device_type),
                compute_capability=None if capability is None else ".".join(map(str, capability)),
            )
        )
    return sorted(devices, key=lambda device: device.kind == "cpu")


def accelerators() -> list[Device]:
    """Return the devices that TensorFlow may use, without CPUs."""
    return [device for device in list_devices() if device.kind != "cpu"]


def describe() -> str:
    """Return a text about the devices in use, such as ``2 x NVIDIA A100-SXM4-40GB (Nvidia)``."""
    names = Counter((device.name, device.kind) for device in accelerators() or list_devices())
    return ", ".join(f"{count} x {name} ({_KIND_NAMES[kind]})" for (name, kind), count in names.items())


def why_bfloat16_is_slow(dtype: str, root: Path = Path("/")) -> str | None:
    """Return a warning if a CPU without bfloat16 instructions is to compute in bfloat16; else None.

    Args:
        dtype: ``setup.dtype``.
        root: of the file system.
    """
    if dtype != "mixed_bfloat16" or accelerators():
        return None
    host = read_host(root)
    if host.has_bfloat16 is not False:
        return None
    return (
        f"setup.dtype: {dtype} is slower than float32 here, by 20 to 25 % where it was measured: "
        f"{host.cpu} has no instructions for bfloat16; use float32 on this machine"
    )


def why_bfloat16_aborts(dtype: str) -> str | None:
    """Return an error text if a oneDNN setting would make TensorFlow abort with bfloat16; else None.

    TensorFlow sees that the CPU has AVX-512 and gives products of bfloat16 to oneDNN, but the setting forbids
    oneDNN to use AVX-512.

    Args:
        dtype: ``setup.dtype``.
    """
    name = next((name for name in _MOST_ISA if name in os.environ), None)
    if dtype != "mixed_bfloat16" or name is None or os.environ[name].upper() not in _NO_BF16:
        return None
    if accelerators() or not _onednn_enabled():
        return None
    if "AVX-512" not in (read_host().instruction_sets or ()):
        return None
    return (
        f"setup.dtype: {dtype} does not go with {name}={os.environ[name]}: oneDNN has no products of "
        "bfloat16 then, and TensorFlow would abort; unset the variable, set TF_ENABLE_ONEDNN_OPTS=0, "
        "or use float32"
    )


def grow_gpu_memory() -> None:
    """Let TensorFlow allocate GPU memory when it is needed instead of all at once."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            return  # too late: TensorFlow has started; harmless


def allow_tf32(allowed: bool) -> None:
    """Let Nvidia GPUs round factors of float32 products to 10 bits (TensorFloat-32), or forbid it."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(allowed)


def pin_gpu(local_rank: int, local_size: int = 1) -> None:
    """Show this process only the GPU of its rank. Do nothing on machines without GPUs.

    Args:
        local_rank: number of the process on this machine, from 0.
        local_size: processes on this machine.

    Raises:
        ConfigError: more processes than GPUs.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    processes = max(local_rank + 1, local_size)
    if processes > len(gpus) == 1 and os.environ.get(_OWN_GPU):
        local_rank = 0
    elif processes > len(gpus):
        seen = ", ".join(f"{name}={value}" for name, value in visibility().items())
        raise ConfigError(
            f"{processes} processes on {platform.node()}, but TensorFlow sees {len(gpus)} GPU(s) there"
            f"{f' ({seen})' if seen else ''}; start one process per GPU (horovodrun -np), "
            "or hide the GPUs to train on CPUs (CUDA_VISIBLE_DEVICES=-1)"
        )
    tf.config.set_visible_devices(gpus[local_rank], "GPU")


def visibility() -> dict[str, str]:
    """Return the environment variables that are set to choose devices."""
    return {name: os.environ[name] for name in _VISIBILITY if name in os.environ}


def hides_all(value: str) -> bool:
    """Return whether a variable like CUDA_VISIBLE_DEVICES hides all devices.

    Drivers read entries up to the first that is not a number, UUID (``GPU-...``) or MIG slice (``MIG-...``).
    So an empty value, ``-1`` and Slurm's ``NoDevFiles`` hide all devices.
    """
    first = value.split(",")[0].strip()
    return not (first.isdecimal() or first.upper().startswith(("GPU-", "MIG-")))


def build() -> dict[str, Any]:
    """Return for which accelerators TensorFlow was built, with versions, without loading it."""
    info = _build_info()
    names = ("is_cuda_build", "is_rocm_build", "cuda_version", "cudnn_version", "rocm_version")
    return {"version": _tensorflow_version(), **{name: info[name] for name in names if name in info}}


def onednn_settings() -> dict[str, str]:
    """Return the environment variables that are set for oneDNN."""
    return {name: os.environ[name] for name in _ONEDNN_VARIABLES if name in os.environ}


def hardware(root: Path = Path("/")) -> dict[Kind, int]:
    """Return the number of accelerators of each kind that the operating system shows, without TensorFlow.

    Args:
        root: of the file system.
    """
    counts: dict[Kind, int] = {
        "nvidia": len(list(root.glob("dev/nvidia[0-9]*"))),
        # One device file for all AMD GPUs that can compute; GPUs for graphics only do not have it.
        "rocm": len(list(root.glob("dev/dri/renderD*"))) if (root / "dev/kfd").exists() else 0,
        "hpu": len(list(root.glob("sys/bus/pci/drivers/habanalabs/*:*"))),
    }
    return {kind: count for kind, count in counts.items() if count}


def why_no_accelerator(root: Path = Path("/")) -> str | None:
    """Return a line about accelerators that are present but unused; None if all is as expected.

    Args:
        root: of the file system.
    """
    if accelerators():
        return None
    info, present = build(), hardware(root)
    kind: Kind = "rocm" if info.get("is_rocm_build") else "nvidia"
    # HIP takes CUDA_VISIBLE_DEVICES too.
    names = [name for name, reader in _VISIBILITY.items() if reader == kind or name == "CUDA_VISIBLE_DEVICES"]
    reason: str | None
    hiding = [name for name in names if name in os.environ and hides_all(os.environ[name])]
    if hiding:
        reason = f"{hiding[0]}={os.environ[hiding[0]]!r} hides all GPUs"
    elif "hpu" in present:
        reason = f"{_cards(present, 'hpu')}: -g trains on them"
    else:
        reason = _unusable_gpus(info, present)
    return reason and f"{reason}; running on CPU"


def _unusable_gpus(info: dict[str, Any], present: dict[Kind, int]) -> str | None:
    """Return why GPUs that are present, or that TensorFlow was installed for, are not used.

    The package ``tensorflow`` is always built for CUDA. Only the CUDA libraries beside it, or the package
    tensorflow-rocm, show that a GPU is wanted.
    """
    chosen: Kind | None = None
    if info.get("is_rocm_build"):
        chosen = "rocm"
    elif info.get("is_cuda_build") and _installed("nvidia-cudnn-cu12"):
        chosen = "nvidia"
    kind = next((kind for kind in ("nvidia", "rocm") if kind in present), chosen)
    if kind is None:
        return None
    cards = _cards(present, kind) if kind in present else "no GPU found"
    stack, remedy = (
        ("ROCm", "install tensorflow-rocm in place of tensorflow and look at rocm-smi (docs/devices.md)")
        if kind == "rocm"
        else ("CUDA", f"pip install 'tensorflow[and-cuda]=={info['version']}' and look at nvidia-smi")
    )
    built = info.get("is_rocm_build" if kind == "rocm" else "is_cuda_build")
    state = "finds no device or libraries" if built else "has no support for it"
    return f"{cards}, but TensorFlow {info['version']} {state} ({stack}): {remedy}"


def report() -> dict[str, Any]:
    """Return devices, build and environment as plain data, for ``environment.json``."""
    return {
        "devices": [
            {
                "name": d.tensorflow_name,
                "kind": d.kind,
                "model": d.name,
                "compute_capability": d.compute_capability,
            }
            for d in list_devices()
        ],
        "visible_devices": visibility(),
        "tensorflow_build": build(),
        "onednn": {"enabled": _onednn_enabled(), **onednn_settings()},
        "tf32": _tf32_allowed(),
    }


def _kind(device_type: str) -> Kind:
    """Return the kind of a device of TensorFlow."""
    if device_type == "GPU":
        return "rocm" if build().get("is_rocm_build") else "nvidia"
    return "hpu" if device_type == "HPU" else "cpu"


def _plain_name(device_type: str) -> str:
    """Return a name for a device without a name from its driver."""
    return read_host().cpu if device_type == "CPU" else device_type


def _build_info() -> dict[str, Any]:
    """Return TensorFlow's description of its build, from its file, without loading TensorFlow."""
    spec = find_spec("tensorflow")
    if spec is None or spec.origin is None:
        return {}
    file = Path(spec.origin).parent / "python" / "platform" / "build_info.py"
    return dict(runpy.run_path(str(file))["build_info"]) if file.is_file() else {}


def _tensorflow_version() -> str:
    """Return the version of TensorFlow, for any package name."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _onednn_enabled() -> bool | None:
    """Return whether TensorFlow uses oneDNN here; None if unknown.

    Without a setting, TensorFlow decides by the CPU.
    """
    try:
        # There is no public interface for this.
        from tensorflow.python.util import _pywrap_util_port as port
    except ImportError:
        return None
    ask = getattr(port, "IsMklEnabled", None)
    return None if ask is None else bool(ask())


def _cards(present: dict[Kind, int], kind: Any) -> str:
    """Return a text about the number of devices."""
    return f"this machine has {present[kind]} {_KIND_NAMES[kind]} device(s)"


def _installed(package: str) -> bool:
    """Return whether a package is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _tf32_allowed() -> bool:
    """Return whether TensorFlow may use TensorFloat-32."""
    import tensorflow as tf

    return bool(tf.config.experimental.tensor_float_32_execution_enabled())
