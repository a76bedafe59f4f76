"""A prepared split in memory: synthetic events whose targets can be learned from the inputs."""

from collections.abc import Sequence

import numpy as np

from mlpf.data.dataset.prepared_events import PreparedEvents
from mlpf.physics.features import TARGETS
from mlpf.physics.particles import CLASS_INDEX
from mlpf.physics.schemas import SCHEMAS


class FakeSplit:
    """Has the interface of ``mlpf.data.dataset.split.PreparedSplit``."""

    def __init__(
        self,
        num_events: int,
        seed: int = 0,
        min_elements: int = 3,
        max_elements: int = 40,
        schema: str = "clic",
    ):
        rng = np.random.default_rng(seed)
        self.lengths = rng.integers(min_elements, max_elements + 1, num_events).astype(np.int64)
        self.num_events = num_events
        self._events = [fake_event(rng, int(n), f"fake_{i}", schema) for i, n in enumerate(self.lengths)]
        self._nothing = fake_event(rng, 0, schema=schema)
        self.fields = ("X", "ygen", "ycand", "event")
        self.num_fetches = 0

    def fetch(self, indices, fields: Sequence[str] = ("X", "ygen")) -> PreparedEvents:
        self.num_fetches += 1
        events = [self._events[i] for i in indices] or [self._nothing]
        tables = PreparedEvents.from_events([{field: event[field] for field in fields} for event in events])
        return tables.take(np.arange(len(indices)))


def fake_event(
    rng: np.random.Generator, num_elements: int, name: str = "fake_0", schema: str = "clic"
) -> dict[str, np.ndarray]:
    """Tracks carry charged hadrons, other elements above 2 GeV photons; the rest carry nothing."""
    track, other = SCHEMAS[schema].kinds
    num_tracks = num_elements // 2
    X = np.zeros((num_elements, SCHEMAS[schema].num_features), np.float32)
    is_track = np.arange(num_elements) < num_tracks
    pt = rng.exponential(3.0, num_elements) + 0.1
    eta = rng.normal(0, 1, num_elements)
    phi = rng.uniform(-np.pi, np.pi, num_elements)
    columns = {
        "elemtype": np.where(is_track, track.elemtype, other.elemtype),
        "pt": pt,
        "eta": eta,
        "sin_phi": np.sin(phi),
        "cos_phi": np.cos(phi),
        "p": pt * np.cosh(eta),
    }
    for column, values in columns.items():
        X[:, track.features.index(column)] = values
    charge = np.where(is_track, rng.choice([-1, 1], num_elements), 0)
    if "omega" in track.features.names:
        X[is_track, track.features.index("omega")] = charge[is_track] * 1e-3
    if "num_hits" in other.features.names:
        X[~is_track, other.features.index("num_hits")] = 10
    cls = np.where(is_track, CLASS_INDEX["charged hadron"], CLASS_INDEX["photon"])
    cls = np.where(~is_track & (pt < 2.0), 0, cls)
    y = np.zeros((num_elements, len(TARGETS)), np.float32)
    targets = {
        "cls": cls,
        "charge": charge,
        "pt": pt,
        "eta": eta,
        "sin_phi": np.sin(phi),
        "cos_phi": np.cos(phi),
        "energy": pt * np.cosh(eta),
        "jet_idx": np.where(eta > 0, 1, 2),
    }
    for column, values in targets.items():
        y[:, TARGETS.index(column)] = np.where(cls > 0, values, 0)
    return {"X": X, "ygen": y, "ycand": y.copy(), "event": np.array(name)}
