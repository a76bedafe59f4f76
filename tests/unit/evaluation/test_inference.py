import numpy as np

from mlpf.evaluation.inference import predict
from mlpf.physics.features import PARTICLE_COLUMNS, TRACK_FEATURES
from tests.support.fake_split import FakeSplit


class Recorder:
    """A model that calls each element a photon with the pt of its input column."""

    def __init__(self):
        self.shapes = []

    def __call__(self, X):
        self.shapes.append(X.shape)
        one = np.ones((*X.shape[:2], 1), np.float32)
        outputs = dict.fromkeys(("eta", "sin_phi", "cos_phi", "energy"), one)
        return outputs | {
            "pt": X[..., TRACK_FEATURES.index("pt")][..., None],
            "cls": np.broadcast_to(np.eye(6, dtype=np.float32)[3], (*X.shape[:2], 6)),
            "charge": np.zeros((*X.shape[:2], 3), np.float32),
        }


def run(split, **options):
    model = Recorder()
    return model, predict(model, split, batch_size=4, bucket_size=8, growth=1.3, **options)


def test_each_event_gets_its_own_prediction_in_the_order_of_the_dataset():
    split = FakeSplit(23)
    _, result = run(split)
    assert len(result.events) == len(result.predicted) == 23
    for i, rows in enumerate(result.predicted):
        X = split.fetch([i], ("X",))[0]["X"]
        np.testing.assert_array_equal(result.events[i]["X"], X[:, [TRACK_FEATURES.index("elemtype")]])
        np.testing.assert_array_equal(result.events[i]["ygen"], split.fetch([i], ("ygen",))[0]["ygen"])
        np.testing.assert_array_equal(rows[:, PARTICLE_COLUMNS.index("pt")], X[:, TRACK_FEATURES.index("pt")])
    assert result.events_per_second > 0


def test_batches_come_in_few_shapes_of_whole_bins():
    model, result = run(FakeSplit(50))
    assert {shape[:2] for shape in model.shapes} == set(result.shapes)
    assert all(batch == 4 and length % 8 == 0 for batch, length in result.shapes)
    assert len(result.shapes) <= 5  # lengths up to 40 in bins of 8


def test_first_events_only_and_progress_counts_them():
    seen = []
    _, result = run(FakeSplit(20), num_events=7, on_batch=seen.append)
    assert len(result.predicted) == 7
    assert sum(seen) == 7
    assert len(run(FakeSplit(5), num_events=50)[1].predicted) == 5


def test_empty_split_gives_nothing():
    model, result = run(FakeSplit(0))
    assert result.events == []
    assert model.shapes == []


def test_without_warming_up_each_batch_passes_once():
    warm, result = run(FakeSplit(20))
    cold, same = run(FakeSplit(20), warm_up=False)
    assert len(warm.shapes) == len(cold.shapes) + len(result.shapes)
    assert same.shapes == result.shapes
    for a, b in zip(same.predicted, result.predicted, strict=True):
        np.testing.assert_array_equal(a, b)
