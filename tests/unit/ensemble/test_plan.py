"""Seeds and rows become trainings; all that is refused is said at once; a plan is found again."""

import pytest

from mlpf.config.schema import Config
from mlpf.ensemble.plan import (
    MAX_MEMBERS,
    Member,
    Plan,
    changes,
    configurations,
    parse_seeds,
    read_plan,
)
from mlpf.ensemble.table import Row
from mlpf.errors import CheckpointError, ConfigError
from tests.support.configs import SMALL


@pytest.fixture
def base():
    return Config.model_validate(SMALL)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1:4", [1, 2, 3, 4]), ("7", [7]), ("5:5", [5]), ("9,1:3, 6", [9, 1, 2, 3, 6]), ("0", [0])],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'': expected a seed"),
        ("1:", "'1:': expected a seed"),
        ("a", "'a': expected a seed"),
        ("-1", "'-1': expected a seed"),
        ("3:1", "3:1: the first seed is above the last"),
        ("1,2,1", "seed 1 is given twice"),
        ("4294967296", "seeds go up to 4294967295"),
        ("0:4000000000", f"more than {MAX_MEMBERS} seeds"),
    ],
)
def test_seeds_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        parse_seeds(text)


def test_seeds_alone():
    members = Plan([Row()], [1, 12]).members()
    assert members == [
        Member("seed_1", "", {"setup.seed": 1}),
        Member("seed_12", "", {"setup.seed": 12}),
    ]


def test_rows_alone_and_rows_with_seeds():
    rows = [Row("a", {"setup.lr": 0.1}, "t:1"), Row("b", {}, "t:2")]
    assert Plan(rows).members() == [Member("a", "a", {"setup.lr": 0.1}, "t:1"), Member("b", "b", {}, "t:2")]
    both = Plan(rows, [3, 4]).members()
    assert [member.name for member in both] == ["a_seed_3", "a_seed_4", "b_seed_3", "b_seed_4"]
    assert both[1] == Member("a_seed_4", "a", {"setup.lr": 0.1, "setup.seed": 4}, "t:1")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan([Row("a", {}, "t:1"), Row("A", {}, "t:2")]), "t:2  name A: given before, t:1"),
        (Plan([Row("a/b", {}, "t:1")]), "t:1  name 'a/b': expected letters"),
        (Plan([Row("..", {}, "t:1")]), r"t:1  name '\.\.': expected letters"),
        (Plan([Row("a", {"setup.seed": 1}, "t:1")], [1]), "t:1  setup.seed: --seeds sets it too"),
        (Plan([Row("a")] * 101, range(100)), "10100 trainings; at most 10000"),
    ],
)
def test_plans_that_are_refused(plan, said):
    with pytest.raises(ConfigError, match=said):
        plan.members()


def test_values_reach_the_configuration(base):
    (config,) = configurations(Plan([Row("a", {"setup.lr": 0.1})], [5]).members(), base).values()
    assert (config.setup.lr, config.setup.seed) == (0.1, 5)
    assert config.parameters == base.parameters


def test_all_refused_rows_are_named_with_their_lines(base):
    rows = [
        Row("a", {"setup.lr": -1}, "t:1"),
        Row("b", {"setup.lr": 0.1}, "t:2"),
        Row("c", {"setup.nothing": 1, "setup.num_epochs": 0}, "t:3"),
        Row("d", {"setup.lr.x": 1}, "t:4"),
    ]
    with pytest.raises(ConfigError) as caught:
        configurations(Plan(rows).members(), base)
    lines = str(caught.value).splitlines()
    assert [line[:6] for line in lines] == ["t:1  a", "t:3  c", "t:3  c", "t:4  d"]
    assert "setup.lr" in lines[0]
    assert "(given -1)" in lines[0]
    assert any("setup.nothing: unknown key" in line for line in lines)
    assert "lr is a value, not a section" in lines[3]


def test_a_plan_is_found_again(tmp_path):
    plan = Plan([Row("a", {"setup.lr": 0.1, "b": [1, None]}, "t:1")], [1, 2], 5, None, 4)
    plan.write(tmp_path)
    assert read_plan(tmp_path) == plan
    assert plan.arguments() == ["--ntrain", "5"]


def test_a_plan_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(CheckpointError, match=r"no ensemble of trainings, no ensemble\.json in it"):
        read_plan(tmp_path)
    (tmp_path / "ensemble.json").write_text('{"rows": 3}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"ensemble\.json: damaged"):
        read_plan(tmp_path)


def test_an_ensemble_may_grow_and_move_but_not_change(base):
    plan = Plan([Row("a", {"setup.lr": 0.1})], [1, 2], ntrain=10)
    grown = Plan([Row("a", {"setup.lr": 0.1}), Row("b")], [1, 2, 3], ntrain=10)
    assert changes((base, plan), (base.with_data_dir("elsewhere"), grown)) == []
    other = Plan([Row("a", {"setup.lr": 0.2})], [2], ntrain=11, ntest=3, devices=2)
    assert changes((base, plan), (base.with_overrides({"setup.num_epochs": 7}), other)) == [
        f"setup.num_epochs: {base.setup.num_epochs} -> 7",
        "--ntrain: 10 -> 11",
        "--ntest: all -> 3",
        "--gpus-per-training: 1 -> 2",
        "training a_seed_1: (given) -> (none)",
        "training a_seed_2: setup.lr: 0.1 -> 0.2",
    ]
