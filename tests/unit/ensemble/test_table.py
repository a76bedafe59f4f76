"""Tables of trainings: rows as written, and errors with their line."""

import pytest

from mlpf.ensemble.table import Row, read_rows
from mlpf.errors import ConfigError


def write(folder, text, name="t.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path):
    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    return str(caught.value).splitlines()


def test_yaml(tmp_path):
    path = write(
        tmp_path,
        "# two\n- name: slow\n  setup.lr: 1e-4\n"
        "- {setup.optimizer: adamw, dataset.schema: '1e-4', a.b: [1, 2]}\n",
    )
    assert read_rows(path) == [
        Row("slow", {"setup.lr": 1e-4}, f"{path}:2"),
        Row("row_2", {"setup.optimizer": "adamw", "dataset.schema": "1e-4", "a.b": [1, 2]}, f"{path}:4"),
    ]


def test_csv(tmp_path):
    text = '\ufeffname, setup.lr ,a.b\nslow,1e-4,\n\n,0.5,"[1, 2]"\n007,,true\n'
    path = write(tmp_path, text, "t.csv")
    assert read_rows(path) == [
        Row("slow", {"setup.lr": 1e-4}, f"{path}:2"),
        Row("row_2", {"setup.lr": 0.5, "a.b": [1, 2]}, f"{path}:4"),
        Row("007", {"a.b": True}, f"{path}:5"),
    ]


def test_lines_of_a_csv_file_whose_cells_have_several(tmp_path):
    path = write(tmp_path, 'a.b,c\n"[1,\n2]",3\n4,5\n', "t.csv")
    assert [row.where for row in read_rows(path)] == [f"{path}:3", f"{path}:4"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("t.yaml", "a: 1\n", ["{path}:1  expected a list of mappings, such as `- {{setup.lr: 1.0e-3}}`"]),
        ("t.yaml", "", ["{path}:1  expected a list of mappings, such as `- {{setup.lr: 1.0e-3}}`"]),
        ("t.yaml", "[]", ["{path}: no rows; give one training per row, such as `- {{setup.lr: 1.0e-3}}`"]),
        ("t.yaml", "- a: 1\n- 5\n", ["{path}:2  expected a mapping, such as `- {{setup.lr: 1.0e-3}}`"]),
        ("t.yaml", "- a: 1\n  a: 2\n", ["{path}:2  a: key given twice"]),
        ("t.yaml", "- a: 1\n  name: []\n", ["{path}:2  name: expected text"]),
        (
            "t.yaml",
            "- a: 1\n- b: [1\n",
            ["{path}:3  not valid YAML: expected ',' or ']', but got '<stream end>'"],
        ),
        (
            "t.csv",
            "a,,b\n1,2,3\n",
            ["{path}:1  a column without a key; expected dotted keys, e.g. name,setup.lr"],
        ),
        ("t.csv", "a,b,a\n1,2,3\n", ["{path}:1  a: column given twice"]),
        (
            "t.csv",
            "a,b\n1,2\n1,2,3\n1\n",
            [
                '{path}:3  3 cells, the header has 2; put a cell with a comma in double quotes: "[1, 2]"',
                '{path}:4  1 cells, the header has 2; put a cell with a comma in double quotes: "[1, 2]"',
            ],
        ),
        ("t.csv", "a\n[1\n", ["{path}:2  a: the value '[1' is not valid YAML"]),
    ],
)
def test_errors_name_the_line(tmp_path, name, text, expected):
    path = write(tmp_path, text, name)
    assert problems(path) == [line.format(path=path) for line in expected]


def test_a_file_that_is_not_there(tmp_path):
    assert problems(tmp_path / "no.yaml") == [f"--table {tmp_path}/no.yaml: no such file"]


def test_aliases_that_ask_for_too_much(tmp_path):
    lines = ["- a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (line,) = problems(write(tmp_path, "\n".join(lines)))
    assert "more than 10000 values" in line
