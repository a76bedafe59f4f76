"""Write the pages in docs/ that come from the code: configuration keys and data columns."""

from pathlib import Path

from mlpf.config.explain import explain
from mlpf.files.atomic import atomic_write
from mlpf.physics.features import ACCOUNT_COLUMNS, PARTICLE_COLUMNS, TARGETS, Columns
from mlpf.physics.particles import CLASSES
from mlpf.physics.schemas import SCHEMAS

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEADER = "<!-- written by `make docs`; edit the code instead -->\n"


def cell(text: str) -> str:
    """Escape what Markdown tables treat as a column border."""
    return text.replace("|", "\\|")


def configuration_page() -> str:
    """One table row per configuration key."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows += [f"| `{k.key}` | {cell(k.type)} | {cell(k.default)} | {cell(k.meaning)} |" for k in explain()]
    return f"{HEADER}# Configuration keys\n\n" + "\n".join(rows) + "\n"


def columns_table(title: str, columns: Columns) -> str:
    """One table row per column."""
    rows = [f"## {title}\n", "| # | name | unit | meaning |", "|---|---|---|---|"]
    rows += [f"| {i} | `{c.name}` | {c.unit} | {cell(c.meaning)} |" for i, c in enumerate(columns)]
    return "\n".join(rows) + "\n"


def columns_page() -> str:
    """Features, targets and classes."""
    classes = ["## Classes\n", "| index | PDG label | name |", "|---|---|---|"]
    classes += [f"| {c.index} | {c.pdg} | {c.name} |" for c in CLASSES]
    tables = [
        *(
            columns_table(f"Schema `{schema.name}`: {kind.name}s", kind.features)
            for schema in SCHEMAS.values()
            for kind in schema.kinds
        ),
        columns_table("Targets and baseline candidates, one row per element", TARGETS),
        columns_table("Particle lists, one row per particle", PARTICLE_COLUMNS),
        columns_table("What no target carries, one row per event", ACCOUNT_COLUMNS),
        "\n".join(classes) + "\n",
    ]
    return f"{HEADER}# Columns of a dataset\n\n" + "\n".join(tables)


def main() -> None:
    """Write both pages."""
    for name, page in (("configuration.md", configuration_page()), ("columns.md", columns_page())):
        with atomic_write(DOCS / name) as part:
            part.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
