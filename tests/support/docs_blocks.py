"""Code blocks of README and docs: what they are, what they ask for, and the commands in them.

A comment before a block says what the tests do with it:

``<!-- file: NAME -->``
    The block is written to NAME before the commands of its page run.
``<!-- not run: REASON -->``
    A key of ``REASONS``. Commands of such a block are still parsed.
"""

import contextlib
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from mlpf.cli import cli

LANGUAGES = ("bash", "python", "yaml")
REASONS = {
    "minutes": "run by make test-slow, with fewer events and epochs",
    "cluster": "needs the queue or the nodes of a cluster",
    "GPU": "needs a GPU, or several",
    "network": "fetches files from an archive",
    "installs": "installs or compiles packages",
    "own files": "needs files that only the user has",
}
# Programs beside mlpf that pages may name.
OTHER_PROGRAMS = {"pip", "which", "grep", "python"}
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<kind>file|not run): (?P<what>[^\n]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^ *```$",
    re.M | re.S,
)
# bash calls this function for every program that it does not find, and it finds none. Programs of a pipe
# run at the same time: each is written at once.
_RECORD = """\
command_not_found_handle() { printf -v words '%s\\x1f' "$@"; printf '%s\\x1e' "$words" >> "$RECORD"; }
"""


@dataclass(frozen=True)
class Block:
    """One code block; ``file`` and ``reason`` come from the comment before it."""

    page: str
    line: int
    language: str
    code: str
    file: str | None
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages(root: Path) -> list[Path]:
    """README and all pages of docs."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def read_blocks(page: Path) -> list[Block]:
    """The bash, python and yaml blocks of a page, in order."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in _BLOCK.finditer(text):
        if match["language"] not in LANGUAGES:
            continue
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.M)
        line = text.count("\n", 0, match.start("language")) + 1
        kinds = {kind: match["what"] if match["kind"] == kind else None for kind in ("file", "not run")}
        found.append(Block(page.name, line, match["language"], code, kinds["file"], kinds["not run"]))
    return found


def programs(block: Block) -> list[list[str]]:
    """What bash would start, as lists of words: loops, variables and line breaks are those of bash."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "programs"
        record.touch()
        done = subprocess.run(
            ["/bin/bash", "-c", _RECORD + block.code],
            env={"PATH": "/nowhere", "RECORD": str(record), "SLURM_ARRAY_TASK_ID": "0"},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "syntax error" not in done.stderr, f"{block}: {done.stderr}"
        lines = record.read_text(encoding="utf-8").split("\x1e")[:-1]
    return [line.split("\x1f")[:-1] for line in lines]


def mlpf_words(words: list[str], root: Path) -> list[str] | None:
    """The words after ``mlpf`` that a program is started with, by itself or by another; None without.

    Raises AssertionError for a program, a job script or a target of make that does not exist.
    """
    program, rest = words[0], words[1:]
    if program == "mlpf":
        return rest
    if words[:2] == ["python", "mlpf/pipeline.py"]:
        return words[2:]
    if program in ("horovodrun", "srun"):
        return rest[rest.index("mlpf") + 1 :]
    if program == "sbatch":
        place = next(i for i, word in enumerate(rest) if word.endswith(".sbatch"))
        assert (root / rest[place]).is_file(), rest[place]
        # The script puts the number of a task of an array in place of {task}.
        return [Path(rest[place]).stem, *(word.replace("{task}", "1") for word in rest[place + 1 :])]
    if program == "make":
        makefile = (root / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in rest if "=" not in word):
            assert re.search(rf"^{target}:", makefile, re.M), f"no target {target}"
        return None
    assert program in OTHER_PROGRAMS, f"unknown program {program}"
    return None


def parse(words: list[str]) -> None:
    """Let click check the words after ``mlpf``: commands, options and values; runs nothing."""
    command: click.Command = cli
    name = "mlpf"
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, name, words = command.commands[words[0]], words[0], words[1:]
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        raise click.UsageError(f"no command {words[0]}")
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context(name, list(words))


def inline_commands(page: Path) -> list[list[str]]:
    """Commands with options in the text of a page, ``mlpf ...`` between backquotes."""
    text = re.sub(_BLOCK, "", page.read_text(encoding="utf-8"))
    found = [shlex.split(code) for code in re.findall(r"`mlpf ([^`]*)`", text)]
    return [words for words in found if len(words) > 1 and not {"...", "…"} & set(words)]
