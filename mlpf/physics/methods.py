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
# What the particles of a method are.
METHOD_TEXTS = {
    NETWORK: "found by the network (pred)",
    BASELINE: "candidates of the rule-based particle flow (cand)",
    TARGET: "targets of the training, with the values of the generator: they show what truth loses (target)",
    ORACLE: "whole clusters assigned by truth: the limit of choosing classes (oracle)",
    PERFECT: "every hit assigned by truth: the limit of assigning hits (perfect)",
}
