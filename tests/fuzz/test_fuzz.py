"""Whatever is put in: a good result, or one line and exit code 2. No hang, crash, code run or half file."""

import pyarrow.parquet as pq
import pytest

from mlpf.data.events import Events
from mlpf.workflows import build, postprocess
from tests.fuzz import inputs
from tests.fuzz.child import Child
from tests.support.edm4hep_files import simple_event, write_edm4hep

# Cases per kind: all of them, and what the ordinary tests take of them.
NUMBER = {
    "root-bytes": 100,
    "root-meaning": 40,
    "parquet": 60,
    "dataset": 60,
    "dataset-types": 60,
    "pickle": 60,
    "yaml": 60,
}
QUICK_EVERY = 12


@pytest.fixture(scope="module")
def child():
    child = Child()
    yield child
    child.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A ROOT file, its parquet file and a dataset made of it."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "root").mkdir()
    write_edm4hep(folder / "root" / "a.root", [simple_event(e) for e in (5.0, 10.0, 20.0, 40.0)])
    postprocess.run([folder / "root"], folder / "parquet")
    inputs_ = [folder / "parquet"]
    built = build.run("clic_edm4hep/ttbar", folder / "sets", inputs_, split_fractions=(1.0, 0.0, 0.0))
    return folder / "parquet" / "a.parquet", built.path, folder


def _cases(kind: str, good) -> list[inputs.Case]:
    parquet, dataset, folder = good
    make = {
        "root-bytes": lambda i: inputs.root_bytes(i, folder),
        "root-meaning": inputs.root_meaning,
        "parquet": lambda i: inputs.parquet(i, parquet),
        "dataset": lambda i: inputs.dataset(i, dataset),
        "dataset-types": lambda i: inputs.dataset_types(i, dataset),
        "pickle": inputs.pickled,
        "yaml": inputs.configuration,
    }[kind]
    return [make(i) for i in range(NUMBER[kind])]


def _problems(case: inputs.Case, child: Child, folder) -> list[str]:
    """What went wrong, in words."""
    arguments = case.make(folder)
    ending = child.run(*arguments)
    found = []
    errors = [line for line in ending.stderr.splitlines() if line.strip()]
    if ending.code not in (0, 2):
        found.append(f"exit code {ending.code}: {ending.stderr[-400:]}")
    elif ending.code == 2:
        lines = [line for line in errors if line.startswith("error: ")]
        if "Traceback" in ending.stderr or not lines:
            found.append(f"not an error of one line: {ending.stderr[-400:]}")
        elif arguments[0] != "config" and len(lines) != 1:
            found.append(f"{len(lines)} lines of error")
    if list(folder.rglob("executed")):
        found.append("code was run")
    out = folder / "out"
    for path in out.rglob("*.parquet") if out.exists() else ():
        if len(Events.from_parquet(path)) != pq.read_metadata(path).num_rows:
            found.append(f"half-written {path.name}")
    left = [p.name for p in out.rglob("*")] if out.exists() else []
    found += [f"left behind {name}" for name in left if ".part" in name or name.startswith("incomplete")]
    return [f"{case.name}: {problem}" for problem in found]


def _run(cases: list[inputs.Case], child: Child, folder) -> None:
    problems = []
    for case in cases:
        own = folder / case.name
        own.mkdir()
        problems += _problems(case, child, own)
    assert problems == []


@pytest.mark.parametrize("kind", NUMBER)
def test_some_damaged_inputs(kind, good, child, tmp_path):
    _run(_cases(kind, good)[::QUICK_EVERY], child, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", NUMBER)
def test_all_damaged_inputs(kind, good, child, tmp_path):
    _run(_cases(kind, good), child, tmp_path)
