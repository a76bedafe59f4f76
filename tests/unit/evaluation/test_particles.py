import numpy as np
import pytest

from mlpf.data.flat_tables import offsets_from_counts
from mlpf.evaluation.particles import (
    element_columns,
    missing_momentum,
    particle_table,
    rows_from_outputs,
    with_types_only,
)
from mlpf.physics.features import PARTICLE_COLUMNS
from tests.support.events import as_targets, dijet_events, particle_rows, prepared


def outputs_of(cls: list[int], charge: list[int]) -> dict[str, np.ndarray]:
    """One event whose logits point at the given classes and charges."""
    number = len(cls)
    outputs = {
        name: np.full((1, number, 1), 10.0 + i, np.float32)
        for i, name in enumerate(("pt", "eta", "sin_phi", "cos_phi", "energy"))
    }
    outputs["cls"] = np.eye(6, dtype=np.float32)[cls][None]
    outputs["charge"] = np.eye(3, dtype=np.float32)[np.array(charge) + 1][None]
    return outputs


def particles_of(*events):
    """The particles of events given as rows."""
    return particle_table(np.concatenate(events), offsets_from_counts(np.array([len(e) for e in events])))


def test_outputs_become_rows_with_the_class_of_the_largest_logit():
    rows = rows_from_outputs(outputs_of([1, 4, 5], [-1, 1, 0]), [3])
    assert rows[:, PARTICLE_COLUMNS.index("cls")].tolist() == [1, 4, 5]
    assert rows[:, PARTICLE_COLUMNS.index("charge")].tolist() == [-1, 1, 0]
    assert rows[0, PARTICLE_COLUMNS.slice("pt", "energy")].tolist() == [10, 11, 12, 13, 14]


def test_neutral_classes_have_no_charge_whatever_the_charge_head_says():
    rows = rows_from_outputs(outputs_of([2, 3], [-1, 1]), [2])
    assert rows[:, PARTICLE_COLUMNS.index("charge")].tolist() == [0, 0]


def test_elements_of_class_none_carry_nothing_and_padding_is_cut():
    rows = rows_from_outputs(outputs_of([0, 1, 3], [1, 1, 1]), [2])
    assert rows.shape == (2, 7)
    assert not rows[0].any()
    assert particles_of(rows)["cls"].tolist() == [1]


def test_wrong_number_of_logits_is_an_error():
    outputs = outputs_of([1], [0])
    outputs["cls"] = outputs["cls"][..., :4]
    with pytest.raises(ValueError, match="4 logits, expected 6"):
        rows_from_outputs(outputs, [1])


def test_targets_and_particle_rows_give_the_same_list():
    rows = particle_rows(cls=[1, 0, 3], charge=[1, 0, 0], pt=[3, 0, 4], eta=[0, 0, 1], phi=[0, 0, 2])
    from_rows = particles_of(rows, rows[:0])
    from_targets = particles_of(as_targets(rows), as_targets(rows[:0]))
    assert from_rows.counts.tolist() == from_targets.counts.tolist() == [2, 0]
    assert from_rows["pt"].tolist() == from_targets["pt"].tolist() == [3, 4]
    assert from_rows["sin_phi"] == pytest.approx(np.sin([0, 2]), abs=1e-6)  # float32


def test_rows_of_another_width_are_an_error():
    with pytest.raises(ValueError, match=r"particles of shape \(2, 5\), expected \(n, 7\) or \(n, 8\)"):
        particles_of(np.zeros((2, 5)))


def test_missing_momentum_is_the_length_of_the_vector_sum():
    rows = particle_rows(cls=[1, 1], charge=[1, 1], pt=[3, 4], eta=[0, 2], phi=[0, np.pi / 2])
    particles = particles_of(rows, rows[:0], rows[:1])
    assert missing_momentum(particles) == pytest.approx([5, 0, 3], abs=1e-5)  # float32 inputs


def test_elements_keep_every_element_with_its_class():
    (event,) = dijet_events(1)
    columns = element_columns("target", event["ygen"])
    assert columns["target.cls"].tolist() == [1] * 6 + [3] * 4 + [0] * 2
    assert columns["target.energy"].shape == (12,)
    assert (columns["target.energy"] > 0).tolist() == [True] * 10 + [False] * 2


def test_of_the_inputs_only_the_type_is_kept():
    events = prepared(dijet_events(2))
    kept = with_types_only(events)
    assert kept["X"].tolist() == [[1]] * 6 + [[2]] * 6 + [[1]] * 6 + [[2]] * 6
    assert not np.shares_memory(kept["X"], events["X"])  # a view would keep all columns in memory
    assert kept["ygen"] is events["ygen"]
    assert events["X"].shape == (24, 17)


def test_threshold_keeps_an_element_that_two_classes_share():
    # none 0.4 is the largest logit, but its sigmoid 0.6 is below 0.7: a photon, the largest of the others
    outputs = outputs_of([0], [0])
    outputs["cls"] = np.array([[[0.4, -3.0, 0.2, 0.3, -3.0, -3.0]]], dtype=np.float32)
    cls = PARTICLE_COLUMNS.index("cls")
    assert rows_from_outputs(outputs, [1])[0, cls] == 0
    assert rows_from_outputs(outputs, [1], none_threshold=0.7)[0, cls] == 3
    assert rows_from_outputs(outputs, [1], none_threshold=0.55)[0, cls] == 0
