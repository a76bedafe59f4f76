"""Names in a run directory that several rooms know."""

CHECKPOINTS_FOLDER = "checkpoints"
HISTORY_FILE = "history.json"
