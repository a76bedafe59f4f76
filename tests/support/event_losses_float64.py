"""The definitions of the event losses, event by event and particle by particle in float64."""

import math
from collections import defaultdict

import numpy as np

from mlpf.physics.features import TARGETS
from mlpf.training.losses.targets import REGRESSION_NAMES as KINEMATICS


def event_losses_float64(X, y, outputs, directions):
    """Mean of each loss over events with two jets; ``directions`` is [5, P]."""
    found = defaultdict(list)
    y, outputs = y.astype(np.float64), {n: v.astype(np.float64) for n, v in outputs.items()}
    for b in range(len(X)):
        real = np.flatnonzero(X[b, :, 0])
        sharp = np.exp(10 * outputs["cls"][b])
        sides = [
            (y[b, :, TARGETS.index("cls")] > 0, {n: y[b, :, TARGETS.index(n)] for n in KINEMATICS}),
            (1 - sharp[:, 0] / sharp.sum(axis=-1), {n: outputs[n][b, :, 0] for n in KINEMATICS}),
        ]
        jets, cells, met, sorted_points = [], [], [], []
        ranks = y[b, :, TARGETS.index("jet_idx")]
        for weight, p in sides:
            px, py = weight * p["pt"] * p["cos_phi"], weight * p["pt"] * p["sin_phi"]
            met.append(np.hypot(px[real].sum(), py[real].sum()))
            jets.append([np.hypot(px[ranks == r].sum(), py[ranks == r].sum()) for r in (1, 2) if r in ranks])
            cells.append(cells_of(p, px, py, real))
            names = ("pt", "energy", "eta", "sin_phi", "cos_phi")
            points = np.stack([weight * p[name] for name in names], axis=-1)
            sorted_points.append(np.sort(points[real] @ directions, axis=0))
        off = np.array(jets[1]) - np.array(jets[0])
        found["gen_jet_mse"].append(np.sqrt(np.mean(off**2)))
        found["gen_jet_logcosh"].append(np.mean(np.log(np.cosh(off))))
        found["hist_2d"].append(np.sqrt(np.mean((cells[1] - cells[0]) ** 2)))
        gap = abs(met[1] - met[0])
        found["met"].append(gap**2 / 2 if gap < 1 else gap - 0.5)
        found["sliced_wasserstein"].append(np.sqrt(np.mean((sorted_points[0] - sorted_points[1]) ** 2)))
    return {f"{name}_loss": np.mean(values) for name, values in found.items()}


def cells_of(p, px, py, real, n=20, max_eta=6.0):
    sums = np.zeros((n, n, 2))
    for i in real:
        place = min(max((p["eta"][i] + max_eta) / (2 * max_eta / n) - 0.5, 0), n - 1)
        turn = (math.atan2(p["sin_phi"][i], p["cos_phi"][i]) + math.pi) / (2 * math.pi / n) - 0.5
        low, left = min(int(place), n - 2), math.floor(turn)
        for a, share_a in ((low, 1 - place + low), (low + 1, place - low)):
            for c, share_c in ((left, 1 - turn + left), (left + 1, turn - left)):
                sums[a, c % n] += share_a * share_c * np.array([px[i], py[i]])
    return np.hypot(*np.moveaxis(sums, -1, 0))
