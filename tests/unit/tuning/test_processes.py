import os
import subprocess
import sys

import pytest

from mlpf.lifeline import EXIT_ORPHANED, Lifeline
from mlpf.tuning.processes import KeptProcess, Patience, last_lines, start_process, started_by

FOR_EVER = (sys.executable, "-c", "import time\ntime.sleep(600)")


def kept(tmp_path, code, **patience):
    command = [sys.executable, "-c", code]
    return KeptProcess("x", lambda: command, tmp_path / "x.log", Patience(**patience))


def run_once(process):
    with Lifeline() as line:
        assert process.start_if_due(line)
        process.process.wait()
    assert process.ended()
    return process.exit_code


@pytest.mark.parametrize("start", [["-m", "mlpf.pipeline"], ["/a/mlpf/pipeline.py"], ["/a/bin/mlpf"]])
def test_other_processes_are_started_as_this_one(monkeypatch, start):
    monkeypatch.setattr(sys, "orig_argv", ["python", *start, "hypertune", "-o", "hypertune"])
    assert started_by() == ["python", *start]


def test_a_program_that_embeds_us_starts_our_own(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*started_by(), "hypertune", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "Search for hyperparameters" in done.stdout


def test_output_is_appended_to_the_log(tmp_path):
    process = kept(tmp_path, "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)")
    assert run_once(process) == 3
    assert run_once(process) == 3
    assert (tmp_path / "x.log").read_text() == "out\nerr\n" * 2
    assert process.how_it_ended() == "exit code 3"


def test_a_process_leads_a_session_of_its_own(tmp_path):
    run_once(kept(tmp_path, "import os\nprint(os.getsid(0) == os.getpid())"))
    assert (tmp_path / "x.log").read_text() == "True\n"


def test_pauses_double_up_to_the_longest(tmp_path):
    process = kept(tmp_path, "", first_pause=0.5, longest_pause=3)
    assert [process.died() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    with Lifeline() as line:
        assert not process.start_if_due(line)
    process.deaths = 5000
    assert process.died() == 3


def test_a_process_that_is_over_does_not_start(tmp_path):
    process = kept(tmp_path, "")
    process.over = True
    with Lifeline() as line:
        assert not process.start_if_due(line)
    assert process.pid is None
    process.signal(15)  # nobody is there
    process.kill()


def test_killing_waits_until_it_is_gone(tmp_path):
    process = KeptProcess("x", lambda: FOR_EVER, tmp_path / "x.log", Patience())
    with Lifeline() as line:
        process.start_if_due(line)
        assert not process.ended()
        process.kill()
    assert process.how_it_ended() == "signal 9"
    assert process.pid is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_process_and_its_children_are_bound_to_cores(tmp_path):
    core = min(os.sched_getaffinity(0))
    code = (
        "import subprocess, sys, time\ntime.sleep(0.2)\n"
        "subprocess.run([sys.executable, '-c', 'import os\\nprint(os.sched_getaffinity(0))'])"
    )
    with Lifeline() as line:
        start_process([sys.executable, "-c", code], tmp_path / "log", line, cpus=frozenset({core})).wait()
    assert (tmp_path / "log").read_text() == f"{{{core}}}\n"


def test_a_process_hangs_on_the_lifeline(tmp_path, repo_root):
    code = "from mlpf.lifeline import end_with_parent\nimport time\nend_with_parent()\ntime.sleep(600)"
    with Lifeline() as line:
        process = start_process(
            [sys.executable, "-c", code], tmp_path / "log", line, {"PYTHONPATH": str(repo_root)}
        )
    assert process.wait(timeout=60) == EXIT_ORPHANED


def test_last_lines_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert last_lines(log) == ""
    log.write_text("x" * 10_000 + "\n" + "".join(f"{i}\n\n" for i in range(9)))
    assert last_lines(log) == "4\n5\n6\n7\n8"
