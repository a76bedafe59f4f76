"""Numbers of metrics.json as text: rows of tables and sentences, for the terminal and the report."""

import math
from typing import Any

from mlpf.physics.methods import BASELINE, LIMITS, METHOD_NAMES, NETWORK, ORACLE

# Closed part of the gap between baseline and limit that the sentence shows. A share far outside 0 to 1 means
# that the limit is hardly better than the baseline.
_MIN_SHARE, _MAX_SHARE = -1.0, 2.0


def number(value: float | None, uncertainty: float | None = None, digits: int = 4) -> str:
    """Format a number of metrics.json, with its uncertainty if there is one."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    return text if uncertainty is None else f"{text} ± {uncertainty:.{digits}f}"


def measured(value: float | None, error: float | None) -> str:
    """Format a value with as many digits as two digits of its error need; without an error, four digits."""
    if value is None or not math.isfinite(value):
        return "-"
    if error is None or not math.isfinite(error):
        return f"{value:.4g}"
    if error == 0:
        return f"{value:.4g} ± 0"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def response_rows(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the response table, one row per method (M = median; first columns: jets)."""
    header = ["method", "median", "IQR/median", "matched", "MET M, IQR/M", "energy M, IQR/M"]
    rows = []
    for method, values in numbers["methods"].items():
        jet = values["jet"]
        rows.append(
            [
                METHOD_NAMES[method],
                number(jet["median"], None, 3),
                number(jet["iqr_over_median"], jet["iqr_over_median_uncertainty"]),
                number(jet["matched_fraction"], None, 3),
                *(
                    f"{number(values[q]['median'], None, 3)}, {number(values[q]['iqr_over_median'], None, 3)}"
                    for q in ("met", "energy")
                ),
            ]
        )
    return header, rows


def class_rows(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of efficiencies and fake rates, one row per class."""
    methods = (NETWORK, BASELINE)
    quantities = {"efficiency": "efficiency", "fake rate": "fake_rate"}
    header = ["class", *(f"{METHOD_NAMES[m]} {text}" for text in quantities for m in methods)]
    rows = []
    for name in numbers["classes"][NETWORK]:
        cells = [numbers["classes"][m][name][key] for key in quantities.values() for m in methods]
        rows.append([name, *(number(c["value"], c["uncertainty"], 3) for c in cells)])
    return header, rows


def caption(numbers: dict[str, Any]) -> str:
    """Describe the jets, methods and reference of the numbers of a dataset."""
    jet = numbers["jet_definition"]
    exponent = "" if jet["exponent"] is None else f" p={jet['exponent']:g}"
    reference = numbers["gen_reference"].replace("_", " ")
    limits = ORACLE in numbers["methods"]
    has_gen = numbers["gen_reference"] == "gen_particles"
    return (
        f"{numbers['num_events']} {numbers['split']} events, {numbers['num_gen_jets']} jets of {reference}, "
        f"{jet['algorithm']} R={jet['radius']:g}{exponent}, pt > {jet['min_pt']:g} GeV, "
        f"matched one to one within dR < {jet['match_delta_r']:g}; "
        f"network {numbers['inference_events_per_second']:g} events/s"
        + ("; oracle: whole clusters, perfect: every hit assigned by truth" if limits else "")
        + ("" if has_gen else "; the dataset has no generated particles, its targets stand for them")
    )


def scale_sentence(numbers: dict[str, Any]) -> str:
    """Describe the place of the network between baseline, oracle and perfect assignment."""
    width = {m: v["jet"]["iqr_over_median"] for m, v in numbers["methods"].items()}
    scale = ", ".join(
        f"{METHOD_NAMES[m]} {number(width[m])}" for m in (BASELINE, *LIMITS, NETWORK) if m in width
    )
    comparison = numbers["comparison"]
    difference = comparison["iqr_over_median_difference"]
    if difference is None:
        return f"jet response IQR/median: {scale}"
    verdict = "better than" if difference < 0 else "not better than"
    spread = number(difference, comparison["iqr_over_median_difference_uncertainty"])
    shares = {limit: comparison.get(f"gap_closed_to_{limit}") for limit in LIMITS}
    gaps = [
        f"{100 * share:.0f} % of the way to {METHOD_NAMES[limit]}"
        for limit, share in shares.items()
        if share is not None and _MIN_SHARE <= share <= _MAX_SHARE and width[limit] < width[BASELINE]
    ]
    tail = f"; {', '.join(gaps)}" if gaps else ""
    verdict = f"network is {verdict} the baseline, difference {spread} (paired){tail}"
    return f"jet response IQR/median: {scale}; {verdict}"
