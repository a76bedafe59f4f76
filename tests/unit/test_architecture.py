"""The rooms stay small and named by what they own."""

import ast
import graphlib
import sys

import click
import grimp
import pytest

from mlpf.cli import cli

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


# Commands that a room does by itself, and one that shows what `mlpf train-many` ends with.
WITHOUT_WORKFLOW = {
    "config_check",
    "config_explain",
    "config_list",
    "config_show",
    "hypertune_submit",
    "train_many_report",
}


def commands(group, path=()):
    """Yield the names of all commands, hidden ones too: words joined by ``_``."""
    for name, command in group.commands.items():
        words = (*path, name.replace("-", "_"))
        if isinstance(command, click.Group):
            yield from commands(command, words)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield "_".join(words)


def test_every_command_has_its_workflow_and_every_workflow_its_command(repo_root):
    files = {path.stem for path in (repo_root / "mlpf" / "workflows").glob("*.py")} - {"__init__"}
    names = set(commands(cli)) - WITHOUT_WORKFLOW
    # `mlpf site` looks at files only: its three commands are one page.
    assert files == {name if not name.startswith("site_") else "site" for name in names}


def test_folders_hold_what_one_can_scan(repo_root):
    """At most 15 files, ``__init__`` apart; one file per command may be more."""
    longer = {"mlpf/workflows": 20}
    for folder in {path.parent for path in sources(repo_root, "mlpf")}:
        name = str(folder.relative_to(repo_root))
        files = [path for path in folder.glob("*.py") if path.stem != "__init__"]
        assert len(files) <= longer.get(name, 15), name


def test_modules_do_not_import_each_other_in_circles():
    graph = grimp.build_graph(
        "mlpf", include_external_packages=False, exclude_type_checking_imports=True, cache_dir=None
    )
    order = graphlib.TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) - {module} for module in graph.modules}
    )
    order.prepare()  # a circle is an error that names it
