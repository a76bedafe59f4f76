"""The report of a run: one HTML page with its tables and figures."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mlpf.physics.methods import BASELINE, METHOD_NAMES, METHOD_TEXTS
from mlpf.plotting.html_page import figure, page, table
from mlpf.plotting.report_text import caption, class_rows, number, response_rows, scale_sentence

ONNX_HEADER = ("file", "output", "largest difference from Keras", "99 % of the elements")
# Quantities of the validation of a training that the table shows.
VALIDATION_TEXTS = {
    "jet_response_median": "jet response median",
    "jet_response_iqr": "jet response IQR/median",
    "jet_matched_fraction": "jets matched",
    "met_response_iqr": "missing momentum response IQR/median",
}


def build_report(
    title: str,
    metrics: Mapping[str, Any],
    figures: Mapping[str, Mapping[Path, str]],
    *,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    reference: Mapping[str, Any],
    model_card: Mapping[str, Any] | None,
) -> str:
    """Return the page as text.

    Args:
        title: of the page.
        metrics: contents of ``metrics.json``.
        figures: dataset name -> PNG file -> what it shows; ``"training"`` holds those of the training.
        settings: summary of the configuration, name -> value.
        environment: contents of ``environment.json``.
        history: records of the epochs, as in ``history.json``.
        reference: contents of ``validation_reference.json``, empty if the run has none.
        model_card: contents of ``model_card.json``, None if the model was not exported.

    Raises:
        OSError: a figure cannot be read.
    """
    methods = dict.fromkeys(m for numbers in metrics["datasets"].values() for m in numbers["methods"])
    parts = ["<h2>Methods</h2>", table(["method", "particles"], method_rows(methods))]
    for name, numbers in metrics["datasets"].items():
        parts += [
            f"<h2>{escape(name)}</h2>",
            f'<p class="scale">{escape(scale_sentence(numbers))}.</p>',
            table(*response_rows(numbers)),
            f'<p class="note">{escape(caption(numbers))}</p>',
            "<h3>Elements against their targets</h3>",
            table(*class_rows(numbers)),
            *(figure(path, text) for path, text in figures.get(name, {}).items()),
        ]
    for reason in metrics["skipped"].values():
        parts.append(f'<p class="note">skipped {escape(reason)}</p>')
    rows = start_rows(environment) + training_rows(history, metrics, reference)
    parts += ["<h2>Training</h2>", table(["quantity", "value"], rows)]
    parts += [figure(path, text) for path, text in figures.get("training", {}).items()]
    if model_card is not None:
        parts += ["<h2>ONNX</h2>", table(ONNX_HEADER, onnx_rows(model_card))]
    parts += ["<h2>Configuration</h2>", table(["key", "value"], _as_rows(settings))]
    facts = {name: value for name, value in environment.items() if name != "starts"}
    parts += ["<h2>Environment</h2>", table(["", "value"], _as_rows(facts))]
    return page(title, parts)


def method_rows(methods: Iterable[str]) -> list[list[str]]:
    """Return rows with the name of each method and what its particles are."""
    return [[METHOD_NAMES[method], METHOD_TEXTS[method]] for method in methods]


def start_rows(environment: Mapping[str, Any]) -> list[list[str]]:
    """Return rows with date and command of the first start of a training, and of the last."""
    starts = environment.get("starts") or []
    named = {"started": starts[:1], "last continued": starts[1:][-1:]}
    return [
        [text, f"{start['time']}: {start['command']}"] for text, found in named.items() for start in found
    ]


def training_rows(
    history: Sequence[Mapping[str, float]], metrics: Mapping[str, Any], reference: Mapping[str, Any]
) -> list[list[str]]:
    """Return rows with the epochs, the time, the speed and the last validation of a training."""
    if not history:
        return [["epochs", "0"]]
    rows = [
        ["epochs", str(len(history))],
        ["checkpoint evaluated", str(metrics["checkpoint"])],
    ]
    training = sum(record.get("seconds", 0.0) for record in history)
    validation = sum(record.get("val_seconds", 0.0) for record in history)
    if training > 0:
        events = sum(record.get("num_events", 0) for record in history)
        elements = sum(record.get("num_elements", 0) for record in history)
        rows += [
            ["training time", f"{training / 60:.1f} min"],
            ["validation time", f"{validation / 60:.1f} min"],
            ["training events/s", f"{events / training:.0f}"],
            ["training elements/s", f"{elements / training:.0f}"] if elements else [],
        ]
    last = history[-1]
    rows += [
        [f"last {name.replace('_', ' ')}", f"{last[name]:.5g}"]
        for name in ("loss", "val_loss")
        if name in last
    ]
    return [row for row in rows if row] + _physics_rows(history, reference)


def _physics_rows(history: Sequence[Mapping[str, float]], reference: Mapping[str, Any]) -> list[list[str]]:
    """Return the last validation of jets and missing momentum, beside the baseline."""
    rows = []
    baseline = reference.get("methods", {}).get(BASELINE, {})
    for quantity, text in VALIDATION_TEXTS.items():
        values = [record[f"val_{quantity}"] for record in history if f"val_{quantity}" in record]
        if values:
            beside = f" (baseline {number(baseline[quantity])})" if quantity in baseline else ""
            rows.append([f"last validation {text}", f"{number(values[-1])}{beside}"])
    return rows


def onnx_rows(model_card: Mapping[str, Any]) -> list[list[str]]:
    """Return rows with the differences between ONNX and Keras: file, output, largest, 99th percentile."""
    rows = []
    for facts in model_card.get("files", {}).values():
        parity = facts["parity"]
        for name, values in parity["outputs"].items():
            rows.append([facts["file"], name, f"{values['largest']:.1e}", f"{values['percentile_99']:.1e}"])
        rows.append([facts["file"], "class flips", f"{parity['class_flip_share']:.2%}", ""])
    return rows


def _as_rows(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Flatten nested mappings to rows of dotted name and value."""
    rows: list[list[str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows += _as_rows(value, f"{name}.")
        else:
            rows.append([name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)])
    return rows
