"""The driver of an ensemble: gives trainings to an engine until all have ended or a stop is requested."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from mlpf.engine.base import Engine, TaskLost
from mlpf.engine.child import SAVE_SECONDS, ask_all_to_stop
from mlpf.ensemble.state import MemberFiles, MemberState, read_state
from mlpf.ensemble.task import MemberTask, train_member
from mlpf.errors import MLPFError, one_line

_LOOK_SECONDS = 1.0
# Longer than a program may take to save. Tasks that still run then are ended with the engine.
_PATIENCE_SECONDS = SAVE_SECONDS + 30.0


class Driver:
    """Keeps every slot of an engine busy with a training.

    Args:
        directory: directory of the ensemble.
        states: name -> state of the training; updated.
        task_of: returns the task of a training.
    """

    def __init__(self, directory: Path, states: dict[str, MemberState], task_of: Callable[[str], MemberTask]):
        self.states = states
        self._directory = directory
        self._task_of = task_of
        self._given: dict[Future[MemberState], str] = {}

    @property
    def given(self) -> list[str]:
        """Names of the trainings that the engine has."""
        return list(self._given.values())

    def run(self, engine: Engine, reason: Callable[[], str | None], show: Callable[[], None]) -> str | None:
        """Run all waiting trainings; return the reason of a stop, None if all have ended.

        Args:
            engine: runs the trainings, one per slot.
            reason: returns why to stop; None = continue.
            show: called about once per second.

        Raises:
            EngineFailed: the engine has ended.
            ConfigError: a node does not see the directory.
        """
        waiting = deque(name for name, state in self.states.items() if state.state == "waiting")
        stopping: str | None = None
        deadline = float("inf")
        while (waiting and not stopping) or self._given:
            while waiting and not stopping and len(self._given) < engine.num_slots:
                name = waiting.popleft()
                self._given[engine.submit(train_member, self._task_of(name))] = name
            for future in wait(self._given, _LOOK_SECONDS, FIRST_COMPLETED).done:
                name = self._given.pop(future)
                self.states[name] = self._result(future, name, bool(stopping))
                if self.states[name].state == "waiting":
                    waiting.append(name)
            if not stopping and (stopping := reason()):
                ask_all_to_stop(self._directory)
                self._cancel_unbegun()
                deadline = time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > deadline:
                break
            show()
        return stopping if any(state.state == "waiting" for state in self.states.values()) else None

    def _cancel_unbegun(self) -> None:
        """Cancel tasks that no worker has begun and forget them: ``wait`` would not return their futures."""
        for future in [future for future in self._given if future.cancel()]:
            name = self._given.pop(future)
            self.states[name] = resting(read_state(MemberFiles(self._directory, name)))

    def _result(self, future: Future[MemberState], name: str, stopping: bool) -> MemberState:
        """Return the state of a training after its task. An unexpected error counts as a crash."""
        files = MemberFiles(self._directory, name)
        try:
            return future.result()
        except TaskLost as error:
            state = resting(read_state(files))
            if not stopping:  # the end of a batch job may also end the workers
                state.fail("lost", str(error))
        except MLPFError:  # of the engine, or of a node that can run none of the trainings
            raise
        except Exception as error:  # noqa: BLE001 - one bad training does not stop the others
            state = resting(read_state(files))
            state.crashes += 1
            state.reason = one_line(error)
            if state.crashes > self._task_of(name).retries:
                state.fail("crash", state.reason)
        state.write(files)
        return state


def resting(state: MemberState) -> MemberState:
    """Return the state of a training without a process: ``running`` becomes ``waiting``."""
    if state.state == "running":
        state.state = "waiting"
    return state


def read_states(directory: Path, names: Mapping[str, object] | list[str]) -> dict[str, MemberState]:
    """Return the states of the trainings while no driver runs."""
    return {name: resting(read_state(MemberFiles(directory, name))) for name in names}
