import pytest
from click.testing import CliRunner

from mlpf.cli import cli
from mlpf.config import load_config
from mlpf.errors import ConfigError


def run(*arguments):
    return CliRunner().invoke(cli, ["config", *arguments])


def test_the_list_has_one_line_for_each_shipped_file(repo_root):
    lines = run("list").output.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == sorted(path.stem for path in (repo_root / "parameters").iterdir())
    assert "clic-demo" in names
    for name, line in zip(names, lines, strict=True):
        about = line.removeprefix(name).strip()
        assert about.endswith("."), line
        assert 20 < len(about) <= 100, line


def test_show_prints_what_can_be_edited_anywhere(tmp_path, monkeypatch, repo_root):
    monkeypatch.chdir(tmp_path)
    for name in ("clic-demo", "clic-demo-hypertune"):
        shown = run("show", name).output
        shipped = repo_root / "parameters" / f"{name}.yaml"
        assert shown == shipped.read_text(encoding="utf-8")
        (tmp_path / "mine.yaml").write_text(shown, encoding="utf-8")
        assert load_config("mine.yaml") == load_config(shipped)
    assert run("show", "mine.yaml").output == shown


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("clic_demo", "did you mean 'clic-demo'"),
        ("nowhere/clic.yaml", "give that name"),
        ("/", "cannot be read"),
    ],
)
def test_what_cannot_be_shown_is_an_error(given, message):
    with pytest.raises(ConfigError, match=message):
        raise run("show", given).exception


def test_names_and_files_are_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("check", "clic-demo", "clic-hits", "--set", "setup.num_epochs=10")
    assert done.output == "clic-demo: ok\nclic-hits: ok\n"
