"""Names in a run directory that several rooms know."""

CHECKPOINTS_FOLDER = "checkpoints"
HISTORY_FILE = "history.json"
LOCK_FILE = ".lock"

# Exit codes of a training in a process of its own, see ``training/outcome.py``: it cannot be trained; another
# process still trains or saves it.
EXIT_FAILED, EXIT_BUSY = 3, 4
