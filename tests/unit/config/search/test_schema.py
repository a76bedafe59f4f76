import pytest
from pydantic import TypeAdapter

from mlpf.config import load_config, write_resolved
from mlpf.config.search.schema import HypertuneConfig, ParameterSpace, SearchedKeys, full_conditions
from mlpf.errors import ConfigError
from tests.support.configs import write_config


def searched(**keys):
    return TypeAdapter(SearchedKeys).validate_python(keys)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected exactly one of choice, int, float and boolean, found none"),
        ({"int": [1, 2], "choice": [1]}, "found choice and int"),
        ({"choice": [1, 2], "step": 2}, "step: only with int and float, not with choice"),
        ({"boolean": True, "log": True}, "log: only with int and float, not with boolean"),
        ({"boolean": False}, "boolean"),
        ({"int": [4, 2]}, r"int needs two finite bounds, the smaller one first, not \[4, 2\]"),
        ({"int": [2, 2]}, "the smaller one first"),
        ({"int": [1]}, "int"),
        ({"int": [1.5, 3]}, "int"),
        ({"float": [0.0, float("inf")]}, "two finite bounds"),
        ({"float": [float("nan"), 1.0]}, "two finite bounds"),
        ({"float": [0.0, 1.0], "log": True}, "log needs bounds above 0"),
        ({"int": [0, 8], "log": True}, "log needs bounds above 0"),
        ({"int": [1, 8], "step": 0.5}, "step=0.5 of int is not a whole number"),
        ({"int": [1, 8], "step": 1, "log": True}, "step=1 with log is the factor between values"),
        ({"float": [1, 8], "step": 0.5, "log": True}, "step=0.5 with log"),
        ({"int": [1, 8], "step": 9}, "step=9 leads from 1 beyond 8"),
        ({"float": [0, 1], "step": 1e-6}, "more than 10000 values"),
        ({"float": [0, 1], "step": float("inf")}, "step=inf of float is not a finite number"),
        ({"choice": []}, "choice"),
        ({"choice": [1, 2, 1.0]}, r"1\.0 is given twice"),
        ({"choice": [[1], [1]]}, r"\[1\] is given twice"),
        ({"choice": [float("nan")]}, "nan cannot be a choice"),
        ({"choice": [{1, 2}]}, "cannot be a choice; give numbers, text, booleans"),
    ],
)
def test_values_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        ParameterSpace.model_validate(given)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"choice": [None, [1, 2], "a", True, 1]}, [None, [1, 2], "a", True, 1]),
        ({"choice": ["1e-4", "2.5E3", "adam"]}, [1e-4, 2500.0, "adam"]),
        ({"boolean": True}, [False, True]),
        ({"int": [2, 9]}, [2, 3, 4, 5, 6, 7, 8, 9]),
        ({"int": [2, 9], "step": 3}, [2, 5, 8]),
        ({"int": [2, 32], "step": 2, "log": True}, [2, 4, 8, 16, 32]),
        ({"int": [1, 243], "step": 3, "log": True}, [1, 3, 9, 27, 81, 243]),
        ({"int": [1, 3], "log": True}, [1, 2, 3]),
        ({"float": [0.1, 0.3], "step": 0.1}, [0.1, 0.2, 0.3]),
        ({"float": [0.0, 0.25], "step": 0.1}, [0.0, 0.1, 0.2]),
        ({"float": [1e-4, 1e-1], "step": 10, "log": True}, [1e-4, 1e-3, 1e-2, 1e-1]),
        ({"float": [0.0, 1.0]}, None),
    ],
)
def test_values_of_a_key(given, values):
    found = ParameterSpace.model_validate(given).values
    assert (found if found is None else list(found)) == values


def test_conditions_go_on_to_what_depends_on_them():
    space = searched(
        c={"int": [1, 2], "when": {"b": True}},
        b={"boolean": True, "when": {"a": ["x", "y"]}},
        a={"choice": ["x", "y", "z"]},
        d={"int": [1, 2], "when": {"c": [1], "a": "x"}},
    )
    found = full_conditions(space)
    assert list(found) == ["a", "b", "c", "d"]
    assert found["c"] == {"a": ["x", "y"], "b": [True]}
    assert found["d"] == {"a": ["x"], "b": [True], "c": [1]}


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"other": 1}, "a: when names other, which is no other searched key; they are b, c, r"),
        ({"a": 1}, "a: when names a, which is no other"),
        ({"b": 3}, "a: when wants 3 of b, which is none of its values"),
        ({"b": True}, "a: when wants True of b"),
        ({"b": []}, "a: when gives no value of b"),
        ({"r": 0.5}, "a: when names r, a range without step"),
        ({"b": 2, "c": 1}, "a: when never holds, it needs two values of b"),
    ],
)
def test_conditions_that_cannot_hold_are_refused(when, message):
    with pytest.raises(ValueError, match=message):
        searched(
            a={"int": [1, 5], "when": when},
            b={"choice": [1, 2]},
            c={"int": [1, 2], "when": {"b": 1}},
            r={"float": [0, 1]},
        )


def test_conditions_in_a_circle_are_refused():
    with pytest.raises(ValueError, match="when goes in a circle, a -> b -> a"):
        searched(a={"int": [1, 2], "when": {"b": 1}}, b={"int": [1, 2], "when": {"a": 1}})


def test_a_key_is_set_by_one_searched_key_only():
    with pytest.raises(ValueError, match="b: searched twice, or searched and also set"):
        searched(a={"int": [1, 2], "also": ["b"]}, b={"int": [1, 2]})


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ("  space: {setup.lr: {floot: [1, 2]}}", 2, "setup.lr.floot: unknown key (did you mean 'float'?)"),
        ("  space:\n    setup.lr: {float: [2, 1]}", 3, "setup.lr: float needs two finite bounds"),
        ("  space: [setup.lr]", 2, "space: input should be a valid dictionary (given ['setup.lr'])"),
        (
            "  objective: {val_loss: .nan}\n  space: gnn_dense",
            2,
            "objective.val_loss: input should be a finite",
        ),
        ("  objective: {}\n  space: gnn_dense", 1, "hypertune: objective: no metric with a weight"),
    ],
)
def test_errors_name_the_line_and_one_problem(tmp_path, section, line, message):
    path = write_config(tmp_path, f"hypertune:\n{section}\n")
    number = path.read_text(encoding="utf-8").splitlines().index("hypertune:") + line
    with pytest.raises(ConfigError) as error:
        load_config(path)
    (text,) = str(error.value).splitlines()
    assert text.startswith(f"{path}:{number}  hypertune")
    assert message in text


@pytest.mark.parametrize("name", ["clic-demo", "clic"])
def test_a_search_that_is_written_reads_the_same(repo_root, tmp_path, name):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    write_resolved(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_short_names_of_metrics():
    terms = HypertuneConfig(
        objective={"val_jet_iqr": 2.0, "val_loss": 1.0}, space="gnn_dense"
    ).objective_terms
    assert terms == {"val_jet_response_iqr": 2.0, "val_loss": 1.0}
