"""The names of files in a run directory are those that the documentation lists."""

import inspect
import re
from pathlib import Path

from mlpf.files.run_directory import CheckpointFolder, ExportFiles, RunDirectory


def properties(files):
    """Return all paths that a class gives without arguments."""
    names = [name for name, _ in inspect.getmembers(type(files), lambda member: isinstance(member, property))]
    return {name: getattr(files, name) for name in names}


def all_files():
    """Return every path of a run, with the placeholders of the documentation."""
    run = RunDirectory(Path("run"))
    simple = properties(run)
    export = simple.pop("export")
    assert isinstance(export, ExportFiles)
    # The folder is listed by its contents.
    checkpoint = CheckpointFolder(simple.pop("checkpoints") / "epoch_<e>")
    return {
        *simple.values(),
        *properties(checkpoint).values(),
        *(export.onnx(precision) for precision in ("float32", "float16", "int8")),
        export.card,
        run.pointer("best"),
        run.pointer("latest"),
        run.predictions("<dataset>"),
        run.diverged_batch("<e>", "<s>"),
    }


def expand(text):
    """Return the names that ``a/{b,c}`` stands for."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", text)
    return [f"{match[1]}{part}{match[3]}" for part in match[2].split(",")] if match else [text]


def test_the_documentation_lists_every_file_and_no_other(repo_root):
    text = (repo_root / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("### Run directory")[1].split("\n###")[0]
    cells = [line.split("|")[2] for line in section.splitlines() if line.startswith("| ")][1:]
    # An ending such as `.json` and a sign such as `/` are no names of their own.
    spans = [span for cell in cells for span in re.findall("`([^`]+)`", cell)]
    named = {name.rstrip("/") for span in spans if span not in ("/", "_", ".json") for name in expand(span)}
    assert {str(path.relative_to("run")) for path in all_files()} == named


def test_no_two_files_share_a_name():
    run, checkpoint = RunDirectory(Path("run")), CheckpointFolder(Path("run/checkpoints/epoch_1"))
    for files in (run, checkpoint):
        paths = [path for path in properties(files).values() if isinstance(path, Path)]
        assert len(set(paths)) == len(paths)


def test_names_of_an_export_follow_its_first_file():
    files = ExportFiles(Path("elsewhere/net.onnx"))
    assert files.onnx("float32") == Path("elsewhere/net.onnx")
    assert files.onnx("int8") == Path("elsewhere/net_int8.onnx")
    assert files.card == Path("elsewhere/model_card.json")


def test_a_dataset_is_one_file():
    assert RunDirectory(Path("run")).predictions("clic_edm4hep/qq") == Path(
        "run/predictions/clic_edm4hep_qq.parquet"
    )
