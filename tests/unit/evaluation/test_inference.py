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


class SplitWithLists(FakeSplit):
    """Each event has as many generator particles as its number says, and one row of losses."""

    fields_more = ("gen_particles", "account", "event")

    def __init__(self, num_events):
        super().__init__(num_events)
        for i, event in enumerate(self._events):
            event["gen_particles"] = np.full((i % 4, 7), i, np.float32)
            event["account"] = np.full((1, 3), i, np.float32)


def test_each_event_gets_its_own_prediction_in_the_order_of_the_dataset():
    split = SplitWithLists(23)
    _, result = run(split, fields=("X", "ygen", "ycand", *split.fields_more))
    events, X = result.events, split.fetch(range(23), ("X",))["X"]
    assert len({length for _, length in result.shapes}) > 1  # so that the batches are in another order
    np.testing.assert_array_equal(events.elements.counts, split.lengths)
    np.testing.assert_array_equal(events["X"], X[:, [TRACK_FEATURES.index("elemtype")]])
    np.testing.assert_array_equal(events["ygen"], split.fetch(range(23), ("ygen",))["ygen"])
    np.testing.assert_array_equal(
        result.predicted[:, PARTICLE_COLUMNS.index("pt")], X[:, TRACK_FEATURES.index("pt")]
    )
    assert events.names == [f"fake_{i}" for i in range(23)]
    assert events.lists["gen_particles"].counts.tolist() == [i % 4 for i in range(23)]
    assert events["gen_particles"][:, 0].tolist() == events.lists["gen_particles"].event.tolist()
    assert events["account"][:, 0].tolist() == [*range(23)]
    assert result.events_per_second > 0


def test_batches_come_in_few_shapes_of_whole_bins():
    model, result = run(FakeSplit(50))
    assert {shape[:2] for shape in model.shapes} == set(result.shapes)
    assert all(batch == 4 and length % 8 == 0 for batch, length in result.shapes)
    assert len(result.shapes) <= 5  # lengths up to 40 in bins of 8


def test_first_events_only_and_progress_counts_them():
    seen = []
    _, result = run(FakeSplit(20), num_events=7, on_batch=seen.append)
    assert result.events.num_events == 7
    assert len(result.predicted) == len(result.events.elements)
    assert sum(seen) == 7
    assert run(FakeSplit(5), num_events=50)[1].events.num_events == 5


def test_empty_split_gives_nothing():
    model, result = run(FakeSplit(0))
    assert result.events.num_events == 0
    assert result.predicted.shape == (0, 7)
    assert model.shapes == []


def test_without_warming_up_each_batch_passes_once():
    warm, result = run(FakeSplit(20))
    cold, same = run(FakeSplit(20), warm_up=False)
    assert len(warm.shapes) == len(cold.shapes) + len(result.shapes)
    assert same.shapes == result.shapes
    np.testing.assert_array_equal(same.predicted, result.predicted)
