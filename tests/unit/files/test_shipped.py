import pytest

from mlpf.errors import DataError
from mlpf.files import shipped
from mlpf.files.shipped import shipped_folder


def test_a_checkout_has_them_beside_the_package(repo_root):
    assert shipped_folder("parameters") == repo_root / "parameters"
    assert shipped_folder("scripts/slurm") == repo_root / "scripts" / "slurm"


def test_an_installed_package_has_them_inside(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "mlpf"
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    stranger = package.parent / "parameters"
    (package / "parameters").mkdir(parents=True)
    stranger.mkdir()
    assert shipped_folder("parameters") == package / "parameters"
    with pytest.raises(DataError, match=r"slurm: missing, .*install it again"):
        shipped_folder("scripts/slurm")
