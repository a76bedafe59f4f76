import os
import subprocess
import sys

import pytest

from tests.support.configs import write_config

HEAVY = ("tensorflow", "keras", "matplotlib", "awkward", "uproot", "fastjet", "scipy", "pythia8mc")
HEAVY += ("keras_tuner", "grpc", "sklearn", "parsl", "zmq")


def run_cli(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "mlpf.pipeline", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


def modules_loaded_by(*arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['mlpf', *{[str(a) for a in arguments]!r}]\n"
        "from mlpf.pipeline import main\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["find-lr"],
        ["simulate"],
        ["postprocess"],
        ["build"],
        ["download"],
        ["data", "check"],
        ["data", "show"],
        ["import-weights"],
        ["infer"],
        ["evaluate"],
        ["plots"],
        ["export"],
        ["config"],
        ["site"],
        ["site", "show"],
        ["hypertune"],
        ["hypertune", "report"],
        ["hypertune", "worker"],
    ],
)
def test_help_loads_nothing_heavy(command):
    assert modules_loaded_by(*command, "--help").isdisjoint(HEAVY)


def test_config_error_loads_nothing_heavy(tmp_path):
    path = write_config(tmp_path, "setup: {lrr: 1}\n")
    assert modules_loaded_by("train", "-c", path).isdisjoint(HEAVY)


def test_a_search_that_is_refused_loads_nothing_heavy(tmp_path):
    path = write_config(tmp_path)
    loaded = modules_loaded_by("hypertune", "-c", path, "-o", tmp_path / "search")
    assert "mlpf" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert "no section hypertune" in run_cli("hypertune", "-c", path, "-o", tmp_path / "search").stderr


def test_config_error_is_lines_and_exit_code_2(tmp_path):
    path = write_config(tmp_path, "setup: {lrr: 1, num_epochs: x}\n")
    done = run_cli("train", "-c", path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {path}:") for line in lines)


def test_config_check_reports_each_file(tmp_path):
    good, bad = write_config(tmp_path), write_config(tmp_path, "x: 1\n", name="bad.yaml")
    done = run_cli("config", "check", good, bad)
    assert done.returncode == 2
    assert f"{good}: ok" in done.stdout
    assert "x: unknown key" in done.stderr


def test_config_check_looks_at_the_space_of_a_search(tmp_path):
    space = "hypertune: {space: {setup.lrr: {float: [0.1, 0.2]}, setup.ema: {float: [0.5, 1.5]}}}\n"
    path = write_config(tmp_path, space)
    done = run_cli("config", "check", path)
    assert (done.returncode, done.stdout) == (2, "")
    where = f"{path}:{path.read_text(encoding='utf-8').splitlines().index(space.strip()) + 1}"
    assert done.stderr.splitlines() == [
        f"error: {where}  hypertune.space  setup.lrr: unknown key (did you mean 'setup.lr'?)",
        f"error: {where}  hypertune.space  setup.ema: input should be less than 1 (given 1.5)",
    ]


def test_script_runs_from_another_directory_despite_a_decoy(repo_root, tmp_path):
    (tmp_path / "click.py").write_text("raise RuntimeError('decoy imported')\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(repo_root / "mlpf" / "pipeline.py"), "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", "?"), ("utf-8", "±")])
def test_signs_that_a_terminal_lacks_do_not_end_a_command(monkeypatch, encoding, sign):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    code = "from mlpf.cli import main\nmain(lambda **_: print('1 \\u00b1 0'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode(encoding) == f"1 {sign} 0\n"


def test_train_needs_a_config_or_a_run_to_resume(tmp_path):
    done = run_cli("train")
    assert done.returncode == 2
    assert "--resume RUN_DIR" in done.stderr


def test_resume_of_a_directory_that_is_no_run_says_so(tmp_path):
    done = run_cli("train", "--resume", tmp_path)
    assert done.returncode == 2
    assert "not a run directory" in done.stderr


def test_prefix_beside_a_run_directory_is_refused(tmp_path):
    done = run_cli("train", "-c", write_config(tmp_path), "-p", "x", "-o", tmp_path / "run")
    assert done.returncode == 2
    assert "leave it out with -o" in done.stderr


def test_operating_system_errors_are_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = run_cli("simulate", "single_pi", "-n", 1, "-o", tmp_path / "file" / "below")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


def test_bad_split_fractions_are_refused(tmp_path):
    done = run_cli("build", "clic_edm4hep/ttbar", "-i", tmp_path, "--split-fractions", "0.5,0.6")
    assert done.returncode == 2
    assert "three fractions that sum to 1" in done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--min-lr", 1, "--max-lr", 0.1), "--min-lr 1 is not below --max-lr 0.1"),
        (("--min-lr", 0), "range"),
        (("--max-lr", "nan"), "finite"),
        (("--steps", 1), "range"),
        (("--stop-factor", 1), "range"),
    ],
)
def test_rates_that_do_not_rise_are_refused(tmp_path, options, reason):
    done = run_cli("find-lr", "-c", write_config(tmp_path), *options)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_partial_without_weights_is_refused(tmp_path):
    done = run_cli("train", "-c", write_config(tmp_path), "--partial")
    assert done.returncode == 2
    assert "give both" in done.stderr
