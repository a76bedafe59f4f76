"""A search in processes of its own, to be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

from mlpf.config.loading import write_resolved
from mlpf.files.run_directory import RESOLVED_CONFIG
from tests.support.search import search_config

PATIENCE_S = 120.0
# Variable of all processes of a search.
MARK = "MLPF_TEST_SEARCH"
# What stands in the command line of processes of the engines.
_KINDS = {
    "spawn_main": "worker",
    "HTEX interchange": "interchange",
    "HTEX worker": "worker",
    "process_worker_pool": "manager",
}


class SearchProcess:
    """The command ``mlpf hypertune``, whose trials train on events in memory.

    Args:
        repo_root: top of the checkout.
        folder: empty; gets the configuration, the output and the directory of the search.
        pause: seconds after each step of a training.
        environment: more variables.
        section: of the configuration; keys with a dot belong to the whole.
    """

    def __init__(self, repo_root, folder, pause=0.0, environment=None, **section):
        self.directory, self._repo_root = folder / "search", repo_root
        self._config = folder / "config.yaml"
        whole = {key: section.pop(key) for key in list(section) if "." in key}
        write_resolved(search_config(**section).with_overrides(whole), self._config)
        self._environment = os.environ | {"PYTHONPATH": str(repo_root), "TF_CPP_MIN_LOG_LEVEL": "3"}
        # Parsl's interchange changes its title, and would overwrite its variables with it.
        ours = {"MLPF_TEST_PAUSE": str(pause), MARK: str(self.directory), "SPT_NOENV": "1"}
        self._environment |= ours | (environment or {})
        self.driver = None

    def pretend(self, plans):
        """Let trials pretend to train, as ``plans`` say by run."""
        self._environment["MLPF_TEST_TRIALS"] = "pretend"
        (self.directory.parent / "fake.json").write_text(json.dumps(plans), encoding="utf-8")
        return self

    def start(self, *options):
        """Begin the search, or go on with it."""
        begun = (self.directory / RESOLVED_CONFIG).exists()
        resume = ["--resume"] if begun else ["-c", str(self._config)]
        words = [sys.executable, "-m", "tests.support.search_cli", "hypertune", *resume]
        with (self.directory.parent / "output.txt").open("ab") as output:
            self.driver = subprocess.Popen(
                [*words, "-o", str(self.directory), *options],
                cwd=self._repo_root,
                env=self._environment,
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def processes(self):
        """All processes of this search that are alive, by kind; those of jobs of Slurm too."""
        found = {}
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.Error):
                ours = process.environ().get(MARK) == str(self.directory)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = self._kind(" ".join(process.info["cmdline"]))
        return found

    def _kind(self, line):
        if f"hypertune trial {self.directory}" in line:
            return "trial"
        if "search_cli hypertune" in line:
            return "driver"
        return next((kind for words, kind in _KINDS.items() if words in line), "other")

    def kill(self, target, generator):
        """Send SIGKILL; return whether there was something to kill before the search ended."""
        deadline = time.monotonic() + PATIENCE_S
        while target not in (*(alive := self.processes()).values(), "group", "everything"):
            if self.driver.poll() is not None:
                return False
            assert time.monotonic() < deadline, f"no {target} among {alive}\n{self.said()[-3000:]}"
            time.sleep(0.02)
        if target == "group":
            self.signal_group(signal.SIGKILL)
            return True
        chosen = [pid for pid, kind in alive.items() if target in (kind, "everything")]
        if target != "everything":
            chosen = generator.sample(chosen, 1)
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    def signal_group(self, number):
        """Send a signal to the driver and its workers, as a terminal or a batch system does."""
        os.killpg(self.driver.pid, number)

    def wait_until_gone(self):
        """Wait until the driver and all that it started have ended."""
        self.driver.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while alive := self.processes():
            assert time.monotonic() < deadline, f"left behind: {alive}"
            time.sleep(0.05)

    def wait_for_epoch(self, run, epoch):
        """Wait until a run has ended an epoch."""
        deadline = time.monotonic() + PATIENCE_S
        file = self.directory / "runs" / run / "history.json"
        while not file.exists() or len(json.loads(file.read_text(encoding="utf-8"))) < epoch:
            assert time.monotonic() < deadline, self.said()[-3000:]
            assert self.driver.poll() is None, self.said()[-3000:]
            time.sleep(0.05)

    def said(self):
        """All that the driver has written."""
        return (self.directory.parent / "output.txt").read_text(errors="replace", encoding="utf-8")
