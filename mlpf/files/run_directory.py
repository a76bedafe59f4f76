"""Names in a run directory that several rooms know."""

CHECKPOINTS_FOLDER = "checkpoints"
HISTORY_FILE = "history.json"
LOCK_FILE = ".lock"

# Directories of many trainings hold a configuration, too; these files tell them from a run directory.
ENSEMBLE_FILE = "ensemble.json"
SEARCH_FILE = "options.json"

# Exit codes of a training in a process of its own, see ``training/loop/outcome.py``: bad input; it cannot be
# trained; another process still trains or saves it; stopped, to be continued (sysexits.h: try again later).
EXIT_BAD_INPUT, EXIT_FAILED, EXIT_BUSY, EXIT_STOPPED = 2, 3, 4, 75
