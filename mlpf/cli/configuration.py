"""Commands about configuration files."""

from pathlib import Path

import click

from mlpf.cli.options import PATH, set_option


@click.group()
def config() -> None:
    """Check and explain configuration files."""


@config.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@set_option
def check(files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Validate configuration FILES, searches for hyperparameters included."""
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
@click.argument("key", default="")
def explain(key: str) -> None:
    """List configuration keys at or below KEY: type, default and meaning."""
    from mlpf.config.explain import explain as explain_keys

    rows = explain_keys(key)
    for row in rows:
        default = f" [{row.default}]" if row.default else ""
        click.echo(f"{row.key}: {row.type}{default}\n    {row.meaning}")
