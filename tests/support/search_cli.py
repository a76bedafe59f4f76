"""The command line, whose trials train on events in memory, or pretend to (``MLPF_TEST_TRIALS=pretend``).

``python -m tests.support.search_cli hypertune ...``: all processes of a search are started like the first.
"""

import os
import sys


def main():
    from mlpf.engine.end_with_parent import end_with_parent

    is_trial = sys.argv[1:3] == ["hypertune", "trial"]
    if is_trial and os.environ.get("MLPF_TEST_TRIALS") == "pretend":
        from tests.support.fake_trial import main as pretend

        end_with_parent()
        options = dict(zip(sys.argv[5::2], sys.argv[6::2], strict=False))
        pretend(sys.argv[3], sys.argv[4], options["--epochs"], options["--num-cpus"])
    from mlpf.cli import main as command_line
    from mlpf.data.dataset import split as prepared

    prepared.require_built = lambda *_: None  # the datasets are in memory
    if is_trial:
        from mlpf.runs import data as training_data
        from tests.support.fake_training import open_fake, slow_down

        training_data.open_split = open_fake
        if pause := float(os.environ.get("MLPF_TEST_PAUSE", "0")):
            slow_down(pause)
    command_line()


if __name__ == "__main__":
    main()
