"""What a process is told about its machine, from files as different systems write them."""

import json
import os

import pytest

from mlpf.machine.host import read_host

# Two of the fields that x86 has for each processor, shortened.
AVX2_ONLY = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model name	: Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz
flags		: fpu sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 bmi2

processor	: 1
vendor_id	: GenuineIntel
model name	: another name
flags		: fpu avx512f avx512_bf16
"""
SAPPHIRE_RAPIDS = """\
processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8480+
flags		: avx2 avx512f avx512dq avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8
"""
GRAVITON_3 = """\
processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd evtstrm aes atomics asimdhp asimddp sve i8mm bf16
CPU implementer	: 0x41
CPU part	: 0xd40
"""
GRAVITON_2 = """\
processor	: 0
Features	: fp asimd evtstrm aes atomics asimdhp asimddp
CPU implementer	: 0x41
"""
POWER = """\
processor	: 0
cpu		: POWER9, altivec supported
clock		: 3800.000000MHz
"""
MEMORY = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\n"


@pytest.fixture
def machine(tmp_path):
    """Write files of the system; return what is read from them."""

    def read(cpuinfo=None, **files):
        texts = {"proc/cpuinfo": cpuinfo} if cpuinfo is not None else {}
        for name, text in (texts | {name.replace("__", "/"): text for name, text in files.items()}).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return read_host(tmp_path)

    return read


@pytest.mark.parametrize(
    ("text", "cpu", "sets", "bfloat16"),
    [
        (AVX2_ONLY, "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", ["AVX2"], False),
        (
            SAPPHIRE_RAPIDS,
            "Intel(R) Xeon(R) Platinum 8480+",
            ["AVX2", "AVX-512", "AVX-512 VNNI", "AVX-VNNI", "AVX-512 bfloat16", "AMX bfloat16", "AMX int8"],
            True,
        ),
        (GRAVITON_3, None, ["NEON", "dot products of int8", "matrices of int8", "SVE", "bfloat16"], True),
        (GRAVITON_2, None, ["NEON", "dot products of int8"], False),
        (POWER, "POWER9, altivec supported", None, None),
        ("", None, None, None),
        ("flags :\n", None, [], False),
        ("no colon in it\n", None, None, None),
    ],
)
def test_processors(machine, text, cpu, sets, bfloat16):
    found = machine(text)
    assert found.cpu == cpu or (cpu is None and found.cpu)  # the architecture, where no model is told
    assert found.as_dict()["instruction_sets"] == sets
    assert found.has_bfloat16 is bfloat16


def test_a_system_without_such_files_is_described_too(machine):
    found = machine()
    assert (found.memory_bytes, found.memory_limit_bytes, found.instruction_sets) == (None, None, None)
    assert "instruction sets unknown" in found.describe()
    assert found.describe().endswith("memory unknown")


VERSION_2 = "0::/user.slice/job_7/step_0\n"
VERSION_1 = "9:name=systemd:/\n4:cpu,memory:/slurm/job_7\n2:cpuacct:/other\n"
GROUP = "sys__fs__cgroup__"


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        (VERSION_2, {"user.slice__job_7__memory.max": "8589934592\n"}, 8),
        # The smallest counts, wherever it is set.
        (VERSION_2, {"user.slice__memory.max": "4294967296\n", "memory.max": "8589934592\n"}, 4),
        (VERSION_2, {"user.slice__job_7__memory.max": "max\n"}, None),
        (VERSION_2, {}, None),
        # A container that shows its own group as the top.
        ("0::/\n", {"memory.max": "2147483648\n"}, 2),
        (VERSION_1, {"memory__slurm__job_7__memory.limit_in_bytes": "6442450944\n"}, 6),
        # What version 1 says where there is no limit: more than there is.
        (VERSION_1, {"memory__memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
        ("in no form that is known\n", {}, None),
    ],
)
def test_memory_and_the_limit_of_control_groups(machine, groups, files, limit):
    found = machine(
        proc__meminfo=MEMORY,
        proc__self__cgroup=groups,
        **{GROUP + name: text for name, text in files.items()},
    )
    assert found.memory_bytes == 32_000_000 * 1024
    assert found.memory_limit_bytes == (None if limit is None else limit * 1024**3)


def test_one_line_says_it_all(machine):
    found = machine(
        AVX2_ONLY,
        proc__meminfo=MEMORY,
        proc__self__cgroup="0::/\n",
        **{GROUP + "memory.max": "2147483648"},
    )
    assert found.describe() == (
        f"Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz (AVX2); {found.usable_cores} of {found.cores} cores; "
        "30.5 GiB memory, limited to 2.0 GiB"
    )
    assert json.loads(json.dumps(found.as_dict()))["memory_limit_gib"] == 2.0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_cores_are_those_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert read_host().usable_cores == 1
    finally:
        os.sched_setaffinity(0, before)
    assert read_host().usable_cores == len(before) <= read_host().cores


def test_this_machine_has_a_processor():
    assert len(read_host().cpu) > 2
