"""The metrics in an epoch record, and which of them can rank checkpoints and configurations."""

from mlpf.config.schema import Config

# Names of ``evaluation.metrics.response_summary``, and those where a smaller value is better.
SUMMARY_NAMES = (
    "jet_response_median",
    "jet_response_iqr",
    "jet_matched_fraction",
    "met_response_median",
    "met_response_iqr",
)
SUMMARY_WIDTHS = ("jet_response_iqr", "met_response_iqr")

# The same names in an epoch record.
PHYSICS_METRICS = tuple(f"val_{name}" for name in SUMMARY_NAMES)
RANKING_METRICS = tuple(f"val_{name}" for name in SUMMARY_WIDTHS)
# A larger value is better: allowed in a sum with negative weight.
_GAINS = ("val_jet_matched_fraction",)


def recorded_metrics(config: Config) -> list[str]:
    """Return the recorded metrics where a smaller value is better."""
    names = ("loss", *(f"{term}_loss" for term in config.loss.term_names))
    physics = RANKING_METRICS if config.callbacks.physics.every else ()
    return [*names, *(f"val_{name}" for name in names), *physics]


def metric_problem(config: Config, name: str, weight: float = 1.0) -> str:
    """Return why ``weight`` times this metric cannot be minimised; empty if it can."""
    if name in PHYSICS_METRICS and not config.callbacks.physics.every:
        return f"{name} is only recorded with callbacks.physics.every above 0; set that to 1"
    recorded = recorded_metrics(config)
    if name in _GAINS and weight < 0:
        return ""
    if name in PHYSICS_METRICS and name not in recorded:
        return f"a smaller {name} is not better; choose one of {', '.join(RANKING_METRICS)}"
    if name not in recorded:
        return f"{name!r} is not recorded; choose one of {', '.join(recorded)}"
    if weight < 0:
        return f"weight {weight:g} would maximise {name}; give a weight above 0"
    return ""
