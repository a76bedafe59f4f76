"""Small events with everything a dataset of ours holds: two jets, targets, baseline, limits."""

import numpy as np

from mlpf.config.detector import CLIC
from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.evaluation.predictions import Predictions, make_predictions
from mlpf.physics.features import PARTICLE_COLUMNS, TARGETS
from mlpf.physics.particles import CLASS_INDEX
from mlpf.physics.random_events import sample_events
from mlpf.physics.schemas import SCHEMAS

NAMES = PARTICLE_COLUMNS.names


def clic_like_events(num_events: int, num_elements: int, seed: int = 0) -> np.ndarray:
    """Random elements [B, N, F] of the columns and ranges of CLIC's tracks and clusters, and padding."""
    return sample_events(SCHEMAS["clic"], num_events, num_elements, CLIC, seed)


def particle_rows(**columns) -> np.ndarray:
    """Rows of PARTICLE_COLUMNS from columns; phi instead of its sine and cosine, energy = p if missing."""
    columns = {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}
    phi = columns.pop("phi")
    columns.setdefault("energy", columns["pt"] * np.cosh(columns["eta"]))
    columns |= {"sin_phi": np.sin(phi), "cos_phi": np.cos(phi)}
    return np.stack([np.broadcast_to(columns[name], phi.shape) for name in NAMES], axis=1)


def as_targets(rows: np.ndarray) -> np.ndarray:
    """Append a jet rank of 0."""
    return np.concatenate([rows, np.zeros((len(rows), len(TARGETS) - rows.shape[1]), rows.dtype)], axis=1)


def scaled(rows: np.ndarray, factor) -> np.ndarray:
    """Scale pt and energy."""
    rows = rows.copy()
    for name in ("pt", "energy"):
        rows[:, NAMES.index(name)] *= factor
    return rows


def dijet_event(rng: np.random.Generator, baseline_smearing: float = 0.1) -> dict[str, np.ndarray]:
    """Six charged hadrons, four photons and two elements without a particle; tracks come first."""
    phi = rng.uniform(-np.pi, np.pi) + np.array([0.0, np.pi] * 6) + rng.normal(0, 0.05, 12)
    cls = np.array([CLASS_INDEX["charged hadron"]] * 6 + [CLASS_INDEX["photon"]] * 4 + [0] * 2)
    rows = particle_rows(
        cls=cls,
        charge=np.where(cls == CLASS_INDEX["charged hadron"], rng.choice([-1, 1], 12), 0),
        pt=rng.uniform(4, 20, 12),
        eta=rng.normal(0, 0.05, 12),
        phi=phi,
    )
    rows[cls == 0] = 0
    smeared = scaled(rows, rng.normal(1, baseline_smearing, 12).clip(0.1))
    particles = rows[cls > 0]
    X = np.zeros((12, 17), np.float32)
    X[:, 0] = [1] * 6 + [2] * 6
    return {
        "X": X,
        "ygen": as_targets(rows),
        "ycand": as_targets(smeared),
        "gen_particles": particles,
        "oracle_particles": scaled(particles, rng.normal(1, 0.02, len(particles))),
        "perfect_particles": particles,
        "event": np.array("dijet_1"),
    }


def dijet_events(number: int, seed: int = 0, baseline_smearing: float = 0.1) -> list[dict[str, np.ndarray]]:
    """Independent dijet events with distinct names."""
    rng = np.random.default_rng(seed)
    events = [dijet_event(rng, baseline_smearing) for _ in range(number)]
    return [{**event, "event": np.array(f"dijet_{i}")} for i, event in enumerate(events)]


def prepared(events: list[dict[str, np.ndarray]]) -> PreparedEvents:
    """Events as tables, also none at all."""
    if not events:
        return PreparedEvents.from_events(dijet_events(1)).take(np.empty(0, np.int64))
    return PreparedEvents.from_events(events)


def one_by_one(events: PreparedEvents) -> list[dict[str, np.ndarray]]:
    """Events of tables as a dictionary each."""
    parts = [events.take(np.array([i])) for i in range(events.num_events)]
    return [{n: part[n][0] if n in part.values else part[n] for n in part.fields} for part in parts]


def predictions_of(dataset, events, predicted, *settings) -> Predictions:
    """``make_predictions`` of events and predicted rows given one by one."""
    rows = np.concatenate([*predicted, np.empty((0, len(PARTICLE_COLUMNS)), np.float32)])
    return make_predictions(dataset, prepared(events), rows, *settings)


def rows_of(events: list[dict[str, np.ndarray]], key: str = "ygen") -> list[np.ndarray]:
    """Targets without the jet rank, the form of predictions."""
    return [event[key][:, : len(PARTICLE_COLUMNS)] for event in events]
