"""Draw the figures of an evaluated run and write its report page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from mlpf.config.schema import Config
from mlpf.errors import DataError
from mlpf.evaluation import metrics as numbers
from mlpf.evaluation.predictions import Predictions, read_predictions
from mlpf.evaluation.statistics import Fraction, bootstrap_weights
from mlpf.files.atomic import atomic_write
from mlpf.files.run_directory import RunDirectory
from mlpf.physics.methods import BASELINE, GEN, NETWORK, TARGET
from mlpf.physics.particles import CLASSES
from mlpf.plotting import history as history_figures
from mlpf.plotting import performance
from mlpf.plotting.figure_captions import figure_caption
from mlpf.plotting.report import build_report
from mlpf.plotting.style import save, style
from mlpf.runs.trained import load_run_config

COMPARED = (NETWORK, BASELINE)
NUM_RESAMPLES = 100
# Sections of the configuration that the report shows.
REPORTED_SECTIONS = ("setup", "batching", "parameters", "loss")


def run(run_dir: Path) -> Path:
    """Write ``figures/`` (PNG and PDF) and ``report.html``.

    Args:
        run_dir: run directory with the output of ``mlpf evaluate``.

    Returns:
        Path of the report.

    Raises:
        DataError: metrics or predictions are missing or damaged.
        CheckpointError: no run directory.
    """
    files = RunDirectory(Path(run_dir))
    config = load_run_config(files.path)
    metrics = _read_json(files.metrics, dict)
    if metrics is None:
        raise DataError(f"{files.metrics}: no such file; run mlpf evaluate -t {files.path} first")
    history: list[dict[str, float]] = _read_json(files.history, list) or []
    reference: dict[str, Any] = _read_json(files.reference, dict) or {}
    environment = _read_json(files.environment, dict) or {}
    card = _read_json(files.export.card, dict)
    for name in metrics["datasets"]:
        read_predictions(files.predictions(name))  # nothing is drawn unless all can be
    figures: dict[str, dict[Path, str]] = {}
    console = Console()
    with style(), console.status("drawing figures"):
        for name in metrics["datasets"]:
            path = files.predictions(name)
            prefix = f"{path.stem}_"
            drawn = dataset_figures(read_predictions(path))
            figures[name] = {
                save(figure, files.figures, prefix + stem): figure_caption(stem) for stem, figure in drawn
            }
        figures["training"] = {
            save(figure, files.figures, name): figure_caption(name)
            for name, figure in training_figures(history, reference)
        }
    page = build_report(
        f"MLPF: {files.path.resolve().name}",
        metrics,
        figures,
        settings=_settings(config, history),
        environment=environment,
        history=history,
        reference=reference,
        model_card=card,
    )
    with atomic_write(files.report) as part:
        part.write_text(page, encoding="utf-8")
    console.print(f"report: {files.report}")
    return files.report


def training_figures(
    history: Sequence[Mapping[str, float]], reference: Mapping[str, Any]
) -> Iterator[tuple[str, Figure]]:
    """Yield file stem and figure for each figure of the training."""
    for loss in history_figures.loss_names(history):
        yield loss, history_figures.loss_curve(history, loss)
    for name in history_figures.physics_names(history):
        yield name, history_figures.physics_curves(history, reference.get("methods", {}), name)


def dataset_figures(predictions: Predictions) -> Iterator[tuple[str, Figure]]:
    """Yield file stem and figure for each figure of one dataset."""
    title = predictions.dataset
    methods = [m for m in predictions.methods if m != TARGET]
    jets = {m: numbers.jet_response(predictions, m)[0] for m in methods}
    yield "jet_response", performance.response(jets, "jet $p_T$", title, (0.7, 1.3))
    weights = bootstrap_weights(predictions.num_events, NUM_RESAMPLES)
    binned = {m: numbers.binned_jet_response(predictions, m, weights) for m in methods}
    yield "jet_response_binned", performance.binned_response(binned, numbers.JET_PT_EDGES, title)
    met = {m: numbers.met_response(predictions, m)[0] for m in methods}
    yield "met_response", performance.response(met, "missing $p_T$", title, (0.0, 2.0))
    energy = {m: numbers.energy_response(predictions, m)[0] for m in methods}
    yield "energy_response", performance.response(energy, "event energy", title, (0.8, 1.2))
    elements = predictions.elements
    matrices = {m: numbers.confusion_matrix(elements, m) for m in COMPARED}
    yield "confusion", performance.confusion(matrices, [c.name for c in CLASSES], title)
    counts = {"all": elements.counts, **predictions.elements_per_event}
    yield "num_elements", performance.num_elements(counts, title)
    for particle in CLASSES[1:]:
        stem = particle.name.replace(" ", "_")
        sums = {m: numbers.class_sums(predictions, m, particle.index) for m in (GEN, *COMPARED)}
        yield f"sums_{stem}", performance.class_sums(sums, particle.name, title)
        fractions = {
            m: {
                key: _columns(values)
                for key, values in numbers.class_fractions_by_energy(elements, m, particle.index).items()
            }
            for m in COMPARED
        }
        yield (
            f"efficiency_{stem}",
            performance.class_fractions(fractions, numbers.ENERGY_EDGES, particle.name, title),
        )


def _columns(fractions: list[Fraction]) -> tuple[np.ndarray, np.ndarray]:
    """Values and uncertainties as arrays."""
    return np.array([f.value for f in fractions]), np.array([f.uncertainty for f in fractions])


def _settings(config: Config, history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    data = config.model_dump(by_alias=True, exclude_none=True)
    first: dict[str, Any] = {
        "training datasets": [
            name for group in config.train_test_datasets.values() for name in group.datasets
        ]
    }
    if history and "num_events" in history[-1]:
        first["training events per epoch"] = history[-1]["num_events"]
    first["validation dataset"] = config.validation_dataset
    return first | {section: data[section] for section in REPORTED_SECTIONS}


def _read_json(path: Path, kind: type) -> Any:
    """Return the contents of a JSON file, None if there is no such file.

    Raises:
        DataError: it is a directory, not JSON, or holds something of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory, expected a JSON file; remove it") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); run the command that writes it again") from None
    if not isinstance(content, kind):
        raise DataError(
            f"{path}: holds a {type(content).__name__}, expected a {kind.__name__}; "
            "run the command that writes it again"
        )
    return content
