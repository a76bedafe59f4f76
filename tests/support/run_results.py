"""What a training left behind, to be compared bit by bit."""

import json

import numpy as np

from tests.support.saved_weights import saved_weights

_TIMES = ("seconds", "per_second", "wait_share", "num_traces")


def result(run_dir):
    """Weights, optimizer, history without times of the last checkpoint."""
    pointer = json.loads((run_dir / "checkpoints" / "latest.json").read_text(encoding="utf-8"))
    folder = run_dir / "checkpoints" / pointer["folder"]
    arrays = saved_weights(folder)
    with np.load(folder / "optimizer.npz") as saved:
        arrays |= {f"optimizer/{name}": saved[name] for name in saved.files}
    history = json.loads((run_dir / "history.json").read_text(encoding="utf-8"))
    numbers = [{k: v for k, v in r.items() if not any(t in k for t in _TIMES)} for r in history]
    return arrays, numbers


def assert_same(a, b):
    """Two of ``result`` are equal."""
    (arrays, history), (others, other_history) = a, b
    assert arrays.keys() == others.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, others[name], err_msg=name)
    assert history == other_history
