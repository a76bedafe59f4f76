import importlib.util


def test_generated_pages_are_up_to_date(repo_root):
    spec = importlib.util.spec_from_file_location("generate_docs", repo_root / "scripts" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    docs = repo_root / "docs"
    assert (docs / "configuration.md").read_text(encoding="utf-8") == module.configuration_page(), (
        "run `make docs`"
    )
    assert (docs / "columns.md").read_text(encoding="utf-8") == module.columns_page(), "run `make docs`"
