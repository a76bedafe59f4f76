"""Methods: where particles of an event come from, with their names in files, metrics and figures."""

GEN = "gen"
NETWORK = "pred"
BASELINE = "cand"
TARGET = "target"
ORACLE = "oracle"
PERFECT = "perfect"

# In the order in which tables and figures show them.
METHODS = (NETWORK, BASELINE, TARGET, ORACLE, PERFECT)
# Limits set by truth.
LIMITS = (ORACLE, PERFECT)
# Methods that give each element a class, in the order of files.
ELEMENT_METHODS = (TARGET, BASELINE, NETWORK)
# In text.
METHOD_NAMES = {
    NETWORK: "network",
    BASELINE: "baseline",
    TARGET: "targets",
    ORACLE: "oracle",
    PERFECT: "perfect",
}
