import importlib.util
import re
import tomllib

import pytest

from mlpf.config.shipped import shipped_configurations


def test_generated_pages_are_up_to_date(repo_root):
    spec = importlib.util.spec_from_file_location("generate_docs", repo_root / "scripts" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    docs = repo_root / "docs"
    assert (docs / "configuration.md").read_text(encoding="utf-8") == module.configuration_page(), (
        "run `make docs`"
    )
    assert (docs / "columns.md").read_text(encoding="utf-8") == module.columns_page(), "run `make docs`"


@pytest.mark.parametrize("folder", ["README.md", "docs", "mlpf", "scripts", "habana"])
def test_nobody_is_told_to_install_a_stranger(repo_root, folder):
    """``mlpf`` on the public index is another project; extras are those of this one."""
    project = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, strangers, unknown = set(project["optional-dependencies"]), [], []
    paths = [repo_root / folder] if folder.endswith(".md") else (repo_root / folder).rglob("*.*")
    for path in (p for p in paths if p.suffix in (".md", ".py", ".sh", ".yaml", ".sbatch")):
        for command in re.findall(r"pip install[^\n`]*", path.read_text(encoding="utf-8")):
            strangers += re.findall(r"[\s'\"]mlpf\b.*", command)
            for names in re.findall(r"\.\[([a-z,]+)\]", command):
                unknown += set(names.split(",")) - extras
    assert (strangers, unknown) == ([], [])


def anchors(page):
    """The anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ +(.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_of_the_pages_lead_somewhere(repo_root):
    lost = []
    for page in (repo_root / "README.md", repo_root / "CONTRIBUTING.md", *(repo_root / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if "://" in link or (target.exists() and (not anchor or anchor in anchors(target))):
                continue
            lost.append(f"{page.name}: {link}")
    assert lost == []


def test_every_page_is_in_the_index(repo_root):
    index = (repo_root / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (repo_root / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_configurations_that_pages_name_exist(repo_root):
    """``-c NAME`` of the package; files, with a suffix, are those of the user."""
    pages = [
        repo_root / "README.md",
        *(repo_root / "docs").glob("*.md"),
        *(repo_root / "scripts" / "slurm").iterdir(),
    ]
    named = {
        name
        for page in pages
        for name in re.findall(r" -c ([a-z][\w-]*)(?![\w./-])", page.read_text(encoding="utf-8"))
    }
    assert "clic-demo" in named
    assert named <= set(shipped_configurations())
