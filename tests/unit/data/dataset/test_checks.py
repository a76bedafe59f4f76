import numpy as np
import pytest

from mlpf.data.dataset.checks import NUM_BINS, Findings, SplitCheck, choose_binning, find_duplicates, tables
from mlpf.physics.features import ACCOUNT_COLUMNS, PARTICLE_COLUMNS, TARGETS, TRACK_FEATURES
from mlpf.physics.schemas import SCHEMAS
from tests.support.events import prepared
from tests.support.fake_split import fake_event

SCHEMA = SCHEMAS["clic"]


def events(rng, count=4, gen=False):
    made = [fake_event(rng, 10, f"file_{i}") for i in range(count)]
    for event in made if gen else ():
        event["gen_particles"] = event["ygen"][:, : len(PARTICLE_COLUMNS)].copy()
    return made


def check(given, split="train", findings=None):
    findings = Findings() if findings is None else findings
    binning = {name: choose_binning(columns, rows) for name, columns, rows in tables(prepared(given), SCHEMA)}
    made = SplitCheck(split, SCHEMA, binning, findings)
    made.add(prepared(given), range(len(given)))
    return made, findings


def test_good_events_have_no_findings_and_right_counts(rng):
    given = events(rng)
    done, findings = check(given)
    assert findings == {}
    assert done.num_events == 4
    assert done.kind_counts.tolist() == [[5, 5]] * 4
    cls = np.concatenate([e["ygen"][:, 0] for e in given]).astype(int)
    assert done.class_counts["ygen"].tolist() == np.bincount(cls, minlength=6).tolist()
    energy = [e["ygen"][:, TARGETS.index("energy")].sum(dtype=np.float64) for e in given]
    np.testing.assert_allclose(done.energy("ygen"), energy)
    assert len(done.energy("gen_particles")) == 0


def test_particle_lists_are_summed_where_they_are(rng):
    given = events(rng, gen=True)
    done, findings = check(given)
    assert findings == {}
    np.testing.assert_allclose(done.energy("gen_particles"), done.energy("ygen"))
    assert "gen_particles" in done.histograms


def break_x(event):
    event["X"][2, TRACK_FEATURES.index("pt")] = np.nan


def break_type(event):
    event["X"][2, 0] = 7


def break_class(event):
    event["ygen"][2, 0] = 6


def break_fraction(event):
    event["ygen"][2, 0] = 0.5


def break_energy(event):
    event["ygen"][2, TARGETS.index("energy")] = 0


def break_candidate(event):
    event["ycand"][2, TARGETS.index("energy")] = np.inf


def break_mass(event):
    event["ygen"][2, TARGETS.index("energy")] *= 0.9


def break_angle(event):
    event["ygen"][2, TARGETS.index("sin_phi")] = 2


def break_charge(event):
    event["ygen"][2, TARGETS.index("charge")] = 2


@pytest.mark.parametrize(
    ("change", "what", "fatal"),
    [
        (break_x, "X of tracks: pt is NaN or infinite", True),
        (break_type, "X: unknown element type", True),
        (break_class, "ygen: class is not 0 to 5", True),
        (break_fraction, "ygen: class is not 0 to 5", True),
        (break_energy, "ygen: particle without energy", True),
        (break_candidate, "ycand: energy is NaN or infinite", True),
        (break_mass, "ygen: energy below momentum pt cosh(eta)", False),
        (break_angle, "ygen: sine and cosine of phi off the circle", False),
        (break_charge, "ygen: charge is not -1, 0 or 1", False),
    ],
)
def test_each_fault_is_found_where_it_is(rng, change, what, fatal):
    given = events(rng)
    binning = {name: choose_binning(columns, rows) for name, columns, rows in tables(prepared(given), SCHEMA)}
    change(given[1])
    findings = Findings()
    SplitCheck("valid", SCHEMA, binning, findings).add(prepared(given), range(100, 104))
    assert findings[what].fatal is fatal
    assert findings[what].count == 1
    assert findings[what].examples == ["valid event 101 (file_1)"]
    assert [f.what for f in findings.values() if f.fatal] == ([what] if fatal else [])


def test_a_fault_of_many_rows_counts_its_event_once_and_examples_are_few(rng):
    given = events(rng, 9)
    for event in given:
        event["X"][:, TRACK_FEATURES.index("eta")] = np.nan
    _, findings = check(given)
    found = findings["X of tracks: eta is NaN or infinite"]
    assert found.count == 9
    assert len(found.examples) == 5


def duplicates(*splits):
    findings = Findings()
    done = [check(given, name, findings)[0] for name, given in zip(("train", "test"), splits, strict=False)]
    assert findings == {}
    find_duplicates(done, findings)
    return {what: (found.count, found.examples) for what, found in findings.items()}


def test_no_duplicates_in_different_events(rng):
    train, test = events(rng), events(rng)
    for event in test:
        event["event"] = np.array(f"other_{event['event']}")
    assert duplicates(train, test) == {}


def test_same_name_and_content_across_splits(rng):
    train, test = events(rng), events(rng, 2)
    test[0]["event"] = np.array("other_0")
    test[1] = {**train[2], "event": np.array("other_1")}
    assert duplicates(train, test) == {
        "the same content in two splits": (1, ["train event 2 (file_2) = test event 1 (other_1)"])
    }
    test[0]["event"] = np.array("file_3")
    assert duplicates(train, test)["the same name in two splits"] == (
        1,
        ["train event 3 (file_3) = test event 0 (file_3)"],
    )


def test_twice_in_one_split(rng):
    train = events(rng)
    train.append({**train[0], "event": np.array("again")})
    assert duplicates(train) == {
        "the same content twice in one split": (1, ["train event 0 (file_0) = train event 4 (again)"])
    }


def test_events_without_elements_or_names_are_no_duplicates(rng):
    train = [fake_event(rng, 0, f"empty_{i}") for i in range(3)]
    named = [dict(e) for e in events(rng)]
    for event in named:
        del event["event"]
    assert duplicates(train, named) == {}


def test_binning_gives_whole_numbers_a_bin_each_and_cuts_tails(rng):
    columns = TARGETS
    sample = np.zeros((10000, len(columns)), np.float32)
    sample[:, 0] = rng.integers(0, 6, 10000)
    sample[:, 1] = rng.normal(0, 1, 10000)
    sample[0, 1] = 1e6
    sample[:, 2] = rng.integers(0, 1000, 10000)
    bins = choose_binning(columns, sample)
    np.testing.assert_allclose(bins.edges(0), np.arange(7) - 0.5)
    assert bins.bins[1] == bins.bins[2] == NUM_BINS
    assert 2.5 < bins.high[1] < 4
    assert bins.bins[3] == 1  # constant


def test_histogram_counts_agree_with_numpy_and_keep_what_is_outside(rng):
    sample = rng.normal(0, 1, (1000, len(TARGETS))).astype(np.float32)
    bins = choose_binning(TARGETS, sample)
    rows = rng.normal(0, 2, (500, len(TARGETS))).astype(np.float32)
    rows[0, 0] = np.nan
    counts = bins.count(rows)
    good = np.clip(rows[1:, 3].astype(np.float64), bins.low[3], bins.high[3])
    np.testing.assert_array_equal(counts[3], np.histogram(good, bins.edges(3))[0])
    assert counts.sum(axis=1).tolist() == [499] * len(TARGETS)


def test_empty_tables_have_bins():
    bins = choose_binning(TARGETS, np.zeros((0, len(TARGETS)), np.float32))
    assert bins.count(np.zeros((0, len(TARGETS)), np.float32)).sum() == 0


@pytest.mark.parametrize("quantity", ["energy", "charge"])
def test_targets_and_losses_must_give_the_generator_particles(rng, quantity):
    given = events(rng, gen=True)
    for event in given:
        extra = np.zeros((1, len(PARTICLE_COLUMNS)), np.float32)
        extra[0, [PARTICLE_COLUMNS.index(n) for n in ("cls", "charge", "pt", "cos_phi", "energy")]] = (
            1,
            -1,
            7,
            1,
            7,
        )
        event["gen_particles"] = np.concatenate([event["gen_particles"], extra])
        event["account"] = np.array([[7.0, -1.0, 1.0]], np.float32)
    assert check(given)[1] == {}
    given[2]["account"][0, ACCOUNT_COLUMNS.index(f"lost_{quantity}")] += 1.0
    (found,) = check(given)[1].values()
    assert found.what == f"{quantity} of targets and losses is not that of gen_particles"
    assert (found.fatal, found.count) == (True, 1)
    assert found.examples == ["train event 2 (file_2)"]
