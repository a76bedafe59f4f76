"""Numbers of a reconstruction: jets, missing momentum, energy sums, efficiencies and fake rates.

Definitions (``method`` is network, baseline, targets, or one of the two limits set by truth):

* jet response: pt of the reconstructed jet over pt of the generated jet it is matched to;
* matched fraction: matched generated jets over all generated jets;
* missing momentum response: the same ratio of |sum of transverse momenta|, over events in which the
  generated one is at least ``MIN_GEN_MET``;
* energy response: ratio of the sums of energies of an event;
* efficiency of class c: elements with target class c and predicted class c over elements with target class c;
* fake rate of class c: elements with predicted class c and another target class, "none" included, over
  elements with predicted class c. For class 0 ("none") it is the fraction of dropped elements
  that have a particle.

Uncertainties: bootstrap over events for medians and widths, binomial for fractions.
"""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from mlpf.config.recorded_metrics import SUMMARY_NAMES
from mlpf.data.flat_tables import IntArray, Table
from mlpf.evaluation.particles import Array, missing_momentum
from mlpf.evaluation.predictions import Predictions
from mlpf.evaluation.statistics import (
    Fraction,
    Spread,
    bootstrap_spread,
    bootstrap_weights,
    fraction,
    spread,
)
from mlpf.physics.jets import MATCH_DELTA_R, definition_of
from mlpf.physics.methods import BASELINE, GEN, LIMITS, NETWORK, TARGET
from mlpf.physics.particles import CLASS_NAMES, NUM_CLASSES

# GeV; below, the ratio of two nearly vanishing vector sums does not describe the detector.
MIN_GEN_MET = 10.0
# GeV, edges of bins in the pt of the generated jet and in the energy of a particle.
JET_PT_EDGES = (5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0)
ENERGY_EDGES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)


def jet_response(predictions: Predictions, method: str) -> tuple[Array, Array, IntArray]:
    """Return response, gen pt in GeV and event of the matched gen jets, all [Q]."""
    matched = predictions.matched_jets[method]
    gen_pt = predictions.jets[GEN]["pt"][matched["gen"]]
    return predictions.jets[method]["pt"][matched["reco"]] / gen_pt, gen_pt, matched.event


def met_response(predictions: Predictions, method: str) -> tuple[Array, IntArray]:
    """Return missing momentum response and event of the events above ``MIN_GEN_MET``, both [Q]."""
    gen = missing_momentum(predictions.particles[GEN])
    event = np.flatnonzero(gen >= MIN_GEN_MET)
    return missing_momentum(predictions.particles[method])[event] / gen[event], event


def response_summary(predictions: Predictions, method: str) -> dict[str, float]:
    """Return the numbers that a training records, named by ``SUMMARY_NAMES``.

    Args:
        predictions: predictions of the events.
        method: the method of the jets and missing momentum.

    Returns:
        Median and IQR/median (``iqr``) of jet and missing momentum response, and the matched fraction: the
        same as in ``evaluate_predictions``, without uncertainties. Undefined numbers are left out.
    """
    response, _, _ = jet_response(predictions, method)
    jet, met = spread(response), spread(met_response(predictions, method)[0])
    matched = fraction(len(response), len(predictions.jets[GEN]))
    values = (jet.median, jet.iqr_over_median, matched.value, met.median, met.iqr_over_median)
    return {name: value for name, value in zip(SUMMARY_NAMES, values, strict=True) if math.isfinite(value)}


def energy_response(predictions: Predictions, method: str) -> tuple[Array, IntArray]:
    """Return energy response and event of the events with gen particles, both [Q]."""
    particles, reference = predictions.particles[method], predictions.particles[GEN]
    gen = reference.sum(reference["energy"])
    event = np.flatnonzero(gen > 0)
    return particles.sum(particles["energy"])[event] / gen[event], event


def class_sums(predictions: Predictions, method: str, cls: int) -> tuple[IntArray, Array]:
    """Return per event the number and the summed energy in GeV of the particles of a class, both [B]."""
    particles = predictions.particles[method]
    of_class = particles.where(particles["cls"] == cls)
    return of_class.counts, of_class.sum(of_class["energy"])


def confusion_matrix(elements: Table, method: str) -> IntArray:
    """Count elements by target class (rows) and class of ``method`` (columns), [C, C]."""
    pair = elements[f"{TARGET}.cls"] * NUM_CLASSES + elements[f"{method}.cls"]
    return np.bincount(pair, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def efficiency_and_fake_rate(elements: Table, method: str) -> dict[str, dict[str, Fraction]]:
    """Return class name -> ``efficiency`` and ``fake_rate`` of ``method`` against the targets."""
    counts = confusion_matrix(elements, method)
    return {
        name: {
            "efficiency": fraction(int(counts[c, c]), int(counts[c].sum())),
            "fake_rate": fraction(int(counts[:, c].sum() - counts[c, c]), int(counts[:, c].sum())),
        }
        for c, name in enumerate(CLASS_NAMES)
    }


def class_fractions_by_energy(
    elements: Table, method: str, cls: int, edges: tuple[float, ...] = ENERGY_EDGES
) -> dict[str, list[Fraction]]:
    """Return ``efficiency`` and ``fake_rate`` of a class in bins of energy.

    The efficiency is binned in the energy of the target, the fake rate in that of the predicted particle.

    Args:
        elements: elements of all events.
        method: ``"pred"`` or ``"cand"``.
        cls: class index above 0.
        edges: bin edges in GeV.
    """
    target, given = elements[f"{TARGET}.cls"] == cls, elements[f"{method}.cls"] == cls

    def binned(passed: Array, total: Array, energy: Array) -> list[Fraction]:
        above, below = np.histogram(energy[passed], edges)[0], np.histogram(energy[total], edges)[0]
        return [fraction(int(a), int(b)) for a, b in zip(above, below, strict=True)]

    return {
        "efficiency": binned(target & given, target, elements[f"{TARGET}.energy"]),
        "fake_rate": binned(given & ~target, given, elements[f"{method}.energy"]),
    }


def binned_jet_response(
    predictions: Predictions, method: str, weights: IntArray, edges: tuple[float, ...] = JET_PT_EDGES
) -> list[dict[str, float]]:
    """Return per bin of gen jet pt: median, IQR/median, their uncertainties, number of jets."""
    response, gen_pt, event = jet_response(predictions, method)
    bins = np.digitize(gen_pt, edges) - 1
    return [
        _with_uncertainty(response[bins == i], event[bins == i], weights)[0] for i in range(len(edges) - 1)
    ]


def evaluate_predictions(predictions: Predictions, num_resamples: int = 200, seed: int = 1) -> dict[str, Any]:
    """Compute all numbers of one dataset.

    Args:
        predictions: predictions of the dataset.
        num_resamples: resamples of the bootstrap.
        seed: seed of the bootstrap.

    Returns:
        Data for JSON (None where a number is undefined): ``jet_definition``, ``methods`` (per method
        ``jet``, ``met``, ``energy``), ``classes`` and ``confusion`` (network and baseline),
        ``comparison`` (network against baseline and limits).
    """
    weights = bootstrap_weights(predictions.num_events, num_resamples, seed)
    methods, widths = {}, {}
    for method in predictions.methods:
        methods[method], widths[method] = _method_numbers(predictions, method, weights)
    definition = definition_of(predictions.jet_algorithm)
    elements = predictions.elements
    numbers = {
        "num_events": predictions.num_events,
        "num_elements": len(elements),
        **{f"num_{name}": int(counts.sum()) for name, counts in predictions.elements_per_event.items()},
        "num_gen_jets": len(predictions.jets[GEN]),
        "gen_reference": predictions.gen_reference,
        "jet_definition": {
            "algorithm": predictions.jet_algorithm,
            **{k: v for k, v in asdict(definition).items() if k != "fastjet_algorithm"},
            "match_delta_r": MATCH_DELTA_R,
        },
        "min_gen_met": MIN_GEN_MET,
        "methods": methods,
        "classes": {
            m: {
                name: {k: asdict(f) for k, f in both.items()}
                for name, both in efficiency_and_fake_rate(elements, m).items()
            }
            for m in (NETWORK, BASELINE)
        },
        "confusion": {m: confusion_matrix(elements, m).tolist() for m in (NETWORK, BASELINE)},
        "comparison": _comparison(methods, widths),
    }
    return _without_nan(numbers)


def _with_uncertainty(values: Array, event: IntArray, weights: IntArray) -> tuple[dict[str, float], Array]:
    """Median and IQR/median with bootstrap uncertainties; the second item is IQR/median per resample."""
    centre: Spread = spread(values)
    medians, widths = bootstrap_spread(values, event, weights)
    return {
        **asdict(centre),
        "median_uncertainty": _deviation(medians),
        "iqr_over_median_uncertainty": _deviation(widths),
    }, widths


def _deviation(values: Array) -> float:
    """Standard deviation over the resamples with a defined number."""
    defined = values[np.isfinite(values)]
    return float(np.std(defined)) if len(defined) > 1 else math.nan


def _method_numbers(predictions: Predictions, method: str, weights: IntArray) -> tuple[dict[str, Any], Array]:
    response, _, event = jet_response(predictions, method)
    jet, widths = _with_uncertainty(response, event, weights)
    matched = fraction(len(response), len(predictions.jets[GEN]))
    met, _ = _with_uncertainty(*met_response(predictions, method), weights)
    energy, _ = _with_uncertainty(*energy_response(predictions, method), weights)
    jet = {
        **jet,
        "matched_fraction": matched.value,
        "matched_fraction_uncertainty": matched.uncertainty,
        "num_jets": len(predictions.jets[method]),
    }
    particles_per_event = len(predictions.particles[method]) / max(predictions.num_events, 1)
    return {"jet": jet, "met": met, "energy": energy, "particles_per_event": particles_per_event}, widths


def _comparison(methods: dict[str, dict[str, Any]], widths: dict[str, Array]) -> dict[str, Any]:
    """Network minus baseline in IQR/median of the jet response, and the closed part of the gap to the limits.

    ``gap_closed_to_<limit>`` is (baseline - network) / (baseline - limit): 0 = like the baseline, 1 = at
    the limit. It is left out where the limit is not better than the baseline. The uncertainty is that of the
    paired difference.
    """
    width = {m: numbers["jet"]["iqr_over_median"] for m, numbers in methods.items()}
    gain = width[BASELINE] - width[NETWORK]
    result = {
        "iqr_over_median_difference": -gain,
        "iqr_over_median_difference_uncertainty": _deviation(widths[NETWORK] - widths[BASELINE]),
    }
    for limit in LIMITS:
        if limit in width and width[BASELINE] > width[limit]:
            result[f"gap_closed_to_{limit}"] = gain / (width[BASELINE] - width[limit])
    return result


def _without_nan(value: Any) -> Any:
    """Replace numbers that are not finite by None: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
