"""Show the progress of tasks: a live table on a terminal, one line per change in a log."""

from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.live import Live


class Display:
    """Shows the state of a driver while its tasks run.

    Args:
        console: output.
    """

    def __init__(self, console: Console):
        self._console = console
        self._live: Live | None = None
        self._shown: tuple[object, ...] = ()

    def show(
        self,
        table: Callable[[], RenderableType],
        what: Callable[[], tuple[object, ...]],
        facts: Callable[[], Iterable[tuple[str, str]]],
    ) -> None:
        """Show the present state.

        Args:
            table: returns the table for a terminal.
            what: returns a key. In a log, a new line is printed when the key changes.
            facts: returns names and texts of that line.
        """
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(console=self._console, auto_refresh=False)
                self._live.start()
            self._live.update(table(), refresh=True)
            return
        now = what()
        if now != self._shown:
            self._shown = now
            line = "  ".join(f"{name} {text}" for name, text in facts())
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None
