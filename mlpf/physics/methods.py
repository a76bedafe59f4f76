"""What the particles of an event come from, under the names that files, metrics and figures have for it."""

GEN = "gen"
NETWORK = "pred"
BASELINE = "cand"
TARGET = "target"
ORACLE = "oracle"
PERFECT = "perfect"

# In the order in which tables and figures show them.
METHODS = (NETWORK, BASELINE, TARGET, ORACLE, PERFECT)
# Set by truth: no network can do better.
LIMITS = (ORACLE, PERFECT)
# Those that give each element a class, in the order of files.
ELEMENT_METHODS = (TARGET, BASELINE, NETWORK)
# In text.
METHOD_NAMES = {
    NETWORK: "network",
    BASELINE: "baseline",
    TARGET: "targets",
    ORACLE: "oracle",
    PERFECT: "perfect",
}
