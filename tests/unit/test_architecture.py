"""The rooms stay small and named by what they own."""

import ast
import sys

import pytest

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def sources(repo_root, *folders):
    return [p for folder in folders for p in sorted((repo_root / folder).rglob("*.py"))]


@pytest.mark.parametrize("folder", ["mlpf", "datasets", "scripts", "tests"])
def test_files_are_short(repo_root, folder):
    lengths = {
        str(p.relative_to(repo_root)): len(p.read_text(encoding="utf-8").splitlines())
        for p in sources(repo_root, folder)
    }
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_functions_are_short(repo_root):
    long = []
    for path in sources(repo_root, "mlpf", "datasets", "scripts"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                long.append(f"{path.relative_to(repo_root)}:{node.lineno} {node.name}")
    assert long == []


def test_text_files_have_an_encoding(repo_root):
    """Without one the locale decides. Ruff has a rule for this, but it does not know what is a path."""
    without = []
    for path in sources(repo_root, "mlpf", "datasets", "scripts"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("read_text", "write_text")
                and "encoding" not in {keyword.arg for keyword in node.keywords}
            ):
                without.append(f"{path.relative_to(repo_root)}:{node.lineno}")
    assert without == []


def test_no_room_is_called_after_nothing(repo_root):
    banned = {"utils", "helpers", "misc", "common"}
    assert [p for p in sources(repo_root, "mlpf") if p.stem in banned] == []


def test_top_level_modules_do_not_shadow_the_standard_library(repo_root):
    names = {p.stem for p in (repo_root / "mlpf").iterdir()}
    assert names & set(sys.stdlib_module_names) == set()


def test_every_test_mirrors_a_module(repo_root):
    orphans = []
    for path in sources(repo_root, "tests/unit"):
        if path.stem == "__init__" or path.parent.name == "unit":
            continue
        room = path.relative_to(repo_root / "tests" / "unit").parent
        if not (repo_root / "mlpf" / room / f"{path.stem.removeprefix('test_')}.py").exists():
            orphans.append(str(path.relative_to(repo_root)))
    assert orphans == []
