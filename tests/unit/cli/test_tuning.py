"""Options of the search, with stand-ins for the workflows."""

import sys
import types

import click
import pytest
from click.testing import CliRunner

from mlpf.cli.tuning import hypertune


@pytest.fixture
def calls(monkeypatch):
    """Replace what the hidden commands run; return the calls that reach it."""
    seen = []

    def module(name):
        made = types.ModuleType(name)
        made.run = lambda *arguments, **options: seen.append((name, arguments, options))
        monkeypatch.setitem(sys.modules, name, made)
        package, _, last = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], last, made, raising=False)

    import mlpf.tuning
    import mlpf.workflows

    assert mlpf.tuning
    assert mlpf.workflows
    for name in ("mlpf.tuning.chief", "mlpf.tuning.worker", "mlpf.workflows.trial"):
        module(name)
    module("mlpf.workflows.hypertune_report")
    return seen


def invoke(*arguments):
    return CliRunner().invoke(hypertune, arguments, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(
    ("line", "arguments", "options"),
    [
        ("chief D --address h --port 5", ["h", 5], {}),
        ("worker D --id a --launcher u", ["a", "u"], {"chief": None, "num_cpus": 1, "gpus": 0}),
        (
            "worker D --id a --launcher u --chief h:1 --num-cpus 2 --gpus 3",
            ["a", "u"],
            {"chief": "h:1", "num_cpus": 2, "gpus": 3},
        ),
        (
            "trial D r --epochs 3 --num-cpus 2 --ntrain 5",
            ["r"],
            {"epochs": 3, "num_cpus": 2, "ntrain": 5, "ntest": None},
        ),
        ("report D", [], {}),
    ],
)
def test_options_reach_the_process(calls, monkeypatch, line, arguments, options):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # chief and worker choose another for their process
    invoke(*line.split())
    ((_, given, seen),) = calls
    assert [str(given[0]), *given[1:]] == ["D", *arguments]
    assert seen == options


def test_hidden_commands_are_not_listed():
    said = invoke("--help").output
    assert "report" in said
    assert "chief DIR" not in said
    assert not any(line.strip().startswith(("worker ", "trial ")) for line in said.splitlines())


def test_without_anything_the_help_is_shown():
    assert "Usage" in invoke().output


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("-c x.yaml", "give -o DIR"),
        ("-o d", "give -c CONFIG for a new search"),
        ("-o d --resume", "nothing to resume"),
        ("-o d --join auto -c x.yaml", "only -o and options of workers"),
        ("-o d --join auto --port 5", "only -o and options of workers"),
        ("-o d --join host", "expected HOST:PORT"),
        ("-o d --join host:99999", "expected HOST:PORT"),
        ("-o d report d", "-o is no option of report"),
        ("-o d -c x --workers 0", "0 is not in the range"),
        ("-o d -c x --time-limit soon", "expected a time"),
    ],
)
def test_what_makes_no_sense_is_said(line, match):
    with pytest.raises(click.UsageError, match=match):
        invoke(*line.split())
