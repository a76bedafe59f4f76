"""A process that runs one command line after another and tells how each ended; replaced if it dies."""

import contextlib
import io
import multiprocessing
import os
import sys
from dataclasses import dataclass

TIMEOUT_SECONDS = 600  # what hangs, hangs; a machine under load is only slow
MEMORY_LIMIT_BYTES = 12 * 1024**3


@dataclass(frozen=True)
class Ending:
    """Exit code and what was written to the error stream; code None = it hung or died."""

    code: int | None
    stderr: str


def _serve(pipe) -> None:
    import resource

    # Every thread of TensorFlow reserves addresses: on many cores their stacks alone would reach the limit.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    from mlpf.cli import main

    while True:
        arguments = pipe.recv()
        sys.argv = ["mlpf", *arguments]
        stdout, stderr = io.StringIO(), io.StringIO()
        code = 0
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                main()
            except SystemExit as leave:
                code = int(leave.code or 0)
            except BaseException as error:  # noqa: BLE001 - this is what the fuzzing looks for
                code, message = 1, f"{type(error).__name__}: {error}"
                stderr.write(f"Traceback: {message}")
        pipe.send((code, stderr.getvalue()))


class Child:
    """Runs command lines in another process."""

    def __init__(self) -> None:
        self._process = None

    def run(self, *arguments) -> Ending:
        """Run ``mlpf <arguments>``."""
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, end = context.Pipe()
            self._process = context.Process(target=_serve, args=(end,), daemon=False)
            self._process.start()
            end.close()
        try:
            self._pipe.send([str(a) for a in arguments])
            if self._pipe.poll(TIMEOUT_SECONDS):
                return Ending(*self._pipe.recv())
            message = f"still running after {TIMEOUT_SECONDS} s"
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(5)
            message = f"the process died with exit code {self._process.exitcode}"
        self.close()
        return Ending(None, message)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
