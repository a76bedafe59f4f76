"""The command line with stand-ins for what a search runs and shows: chief, workers, live table and report.

``python -m tests.support.fake_launch hypertune -c CONFIG -o DIR ...`` is `mlpf hypertune ...` whose processes
are those of ``fake_search``.
"""

import sys
import types

from mlpf.config.search_space import search_section
from tests.support import fake_search

# Starts this module.
PROGRAM = (sys.executable, "-m", "tests.support.fake_launch")


class FakeTable:
    """Instead of the live table: counts its calls."""

    def __init__(self, _directory, console):
        self.console, self.updates = console, 0

    def update(self):
        self.updates += 1

    def close(self):
        self.console.print(f"table closed after {self.updates} updates")


def report(_directory, plots=True):
    """Say that the report was asked for."""
    sys.stdout.write(f"report {plots=}\n")


def modules(check_search=lambda _: None):
    """Return name -> stand-in of each module that draws, or loads what a search space needs."""
    stand_ins = {
        "mlpf.config.search_space": {
            "check_search": check_search,
            "search_section": search_section,
        },
        "mlpf.tuning.live": {"LiveTable": FakeTable},
        "mlpf.workflows.hypertune_report": {"run": report},
    }
    made = {}
    for name, content in stand_ins.items():
        made[name] = types.ModuleType(name)
        vars(made[name]).update(content)
    return made


def main():
    """Run the command line, or a stand-in for a process that it started."""
    if sys.argv[2] in ("chief", "worker"):
        fake_search.main()
        return
    sys.modules.update(modules())
    from mlpf.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
