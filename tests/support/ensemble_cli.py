"""The command line, whose members of an ensemble train on events in memory.

``python -m tests.support.ensemble_cli train-many ...``: all processes of an ensemble are started like the
first. ``MLPF_TEST_PAUSE`` is a pause before each step, in s.
"""

import os
import sys
import time


def main():
    from mlpf.cli import main as command_line
    from mlpf.data.dataset import split as prepared

    prepared.require_built = lambda *_: None  # the datasets are in memory
    if sys.argv[1:3] == ["train-many", "member"]:
        from mlpf.runs import data as training_data
        from tests.support.fake_training import open_fake

        training_data.open_split = open_fake
        pause_steps(float(os.environ.get("MLPF_TEST_PAUSE", "0")))
    command_line()


def pause_steps(pause):
    """Make every step of a training slower."""
    from mlpf.training.loop.trainer import Trainer

    build = Trainer.__init__

    def slowly(self, *arguments, **options):
        build(self, *arguments, **options)
        step = self._train_step

        def paused(batch):
            time.sleep(pause)
            return step(batch)

        self._train_step = paused

    if pause:
        Trainer.__init__ = slowly


if __name__ == "__main__":
    main()
