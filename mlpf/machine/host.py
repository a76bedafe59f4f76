"""The machine of this process: processor, instruction sets, cores and memory."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Flag in /proc/cpuinfo -> name, for flags that select kernels of oneDNN, onnxruntime and Eigen.
_INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 bfloat16",
    "amx_bf16": "AMX bfloat16",
    "amx_int8": "AMX int8",
    # ARM
    "asimd": "NEON",
    "asimddp": "dot products of int8",
    "i8mm": "matrices of int8",
    "sve": "SVE",
    "bf16": "bfloat16",
}
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_FLAG_FIELDS = ("flags", "Features")  # of x86, of ARM
_MODEL_FIELDS = ("model name", "cpu model", "cpu", "Processor")


@dataclass(frozen=True)
class Host:
    """The machine of this process and its limits.

    Attributes:
        cpu: model of the processor; its architecture if the model is unknown.
        instruction_sets: names of relevant instruction sets; None if unknown.
        has_bfloat16: whether there are instructions for products of bfloat16; None if unknown.
        cores: active logical cores.
        usable_cores: cores that this process may run on (its affinity).
        memory_bytes: main memory; None if unknown.
        memory_limit_bytes: memory limit of the control group (container, batch job); None = no limit.
    """

    cpu: str
    instruction_sets: tuple[str, ...] | None
    has_bfloat16: bool | None
    cores: int
    usable_cores: int
    memory_bytes: int | None
    memory_limit_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for ``environment.json``."""
        sets = self.instruction_sets
        return {
            "cpu": self.cpu,
            "instruction_sets": None if sets is None else list(sets),
            "cores": self.cores,
            "usable_cores": self.usable_cores,
            "memory_gib": _gib(self.memory_bytes),
            "memory_limit_gib": _gib(self.memory_limit_bytes),
        }

    def describe(self) -> str:
        """Return all facts in one line."""
        if self.instruction_sets is None:
            sets = "instruction sets unknown"
        else:
            sets = ", ".join(self.instruction_sets) or "none of the instruction sets that matter here"
        cores = f"{self.usable_cores} of {self.cores} cores"
        memory = "memory unknown" if self.memory_bytes is None else f"{_gib(self.memory_bytes)} GiB memory"
        limit = self.memory_limit_bytes
        limited = "" if limit is None else f", limited to {_gib(limit)} GiB"
        return f"{self.cpu} ({sets}); {cores}; {memory}{limited}"


def read_host(root: Path = Path("/")) -> Host:
    """Return the machine of this process.

    Args:
        root: of the file system.
    """
    fields = _cpu_fields(_text(root / "proc/cpuinfo"))
    flags = next((set(fields[name].split()) for name in _FLAG_FIELDS if name in fields), None)
    model = next((fields[name] for name in _MODEL_FIELDS if fields.get(name)), None)
    cores = os.cpu_count() or 1
    memory = _memory(_text(root / "proc/meminfo"))
    limit = _memory_limit(root)
    return Host(
        cpu=model or platform.processor() or platform.machine(),
        instruction_sets=None if flags is None else _names(flags),
        has_bfloat16=None if flags is None else not flags.isdisjoint(_BFLOAT16),
        cores=cores,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        memory_bytes=memory,
        memory_limit_bytes=limit if limit is not None and (memory is None or limit < memory) else None,
    )


def _names(flags: set[str]) -> tuple[str, ...]:
    """Return the names of the instruction sets, in the order of the table."""
    return tuple(name for flag, name in _INSTRUCTION_SETS.items() if flag in flags)


def _cpu_fields(text: str) -> dict[str, str]:
    """Return the fields of the first processor of /proc/cpuinfo that has each of them."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _memory(text: str) -> int | None:
    """Return the bytes of ``MemTotal`` in /proc/meminfo."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _memory_limit(root: Path) -> int | None:
    """Return the smallest memory limit of the control groups of this process.

    A container may show its own group as the root of the file system, so missing paths are skipped.
    """
    limits = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        if number == "0":  # version 2: one tree
            top, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.strip("/"))
        for folder in (group, *group.parents):
            text = _text(top / folder / file).strip()
            if text.isdecimal():  # else "max", or no such file
                limits.append(int(text))
    return min(limits, default=None)


def _gib(size: int | None) -> float | None:
    """Return bytes in GiB, to one decimal."""
    return None if size is None else round(size / 1024**3, 1)


def _text(path: Path) -> str:
    """Return the text of a system file; empty if it is missing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
