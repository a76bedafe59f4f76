"""Commands about configuration files."""

from pathlib import Path

import click

from mlpf.cli.options import PATH, set_option


@click.group()
def config() -> None:
    """List, show, check and explain configurations."""


@config.command("list")
def list_() -> None:
    """List the configurations that come with the package; -c takes their names."""
    from mlpf.config.shipped import shipped_configurations

    found = shipped_configurations()
    width = max(map(len, found))
    for name, about in found.items():
        click.echo(f"{name.ljust(width)}  {about}")


@config.command()
@click.argument("name", metavar="NAME|FILE.yaml")
def show(name: str) -> None:
    """Print the file of a configuration.

    To change one, write a file with `extends: clic-demo` and the keys that differ.
    """
    from mlpf.config.documents import read_document
    from mlpf.config.shipped import configuration_path

    path = configuration_path(name)
    read_document(path)
    click.echo(path.read_text(encoding="utf-8"), nl=False)


@config.command()
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="NAME|FILE.yaml...")
@set_option
def check(files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Validate configurations, searches for hyperparameters included."""
    from mlpf.config.loading import load_config
    from mlpf.config.search.check import check_search
    from mlpf.errors import ConfigError

    problems = []
    for path in files:
        try:
            check_search(load_config(path, overrides), path)
            click.echo(f"{path}: ok")
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


@config.command()
@click.argument("key", nargs=-1, metavar="[KEY|WORDS]")
def explain(key: tuple[str, ...]) -> None:
    """List configuration keys: type, default and meaning.

    KEY selects a key and all keys below it. WORDS (width, learning rate) select keys by meaning.
    """
    from mlpf.config.explain import explain as explain_keys

    rows = explain_keys(" ".join(key))
    for row in rows:
        default = f" [{row.default}]" if row.default else ""
        click.echo(f"{row.key}: {row.type}{default}\n    {row.meaning}")
