import numpy as np
import pytest

from mlpf.evaluation.particles import Elements, ParticleLists, rows_from_outputs
from mlpf.physics.features import PARTICLE_COLUMNS
from tests.support.events import as_targets, dijet_events, particle_rows


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


def test_outputs_become_rows_with_the_class_of_the_largest_logit():
    (rows,) = rows_from_outputs(outputs_of([1, 4, 5], [-1, 1, 0]), [3])
    assert rows[:, PARTICLE_COLUMNS.index("cls")].tolist() == [1, 4, 5]
    assert rows[:, PARTICLE_COLUMNS.index("charge")].tolist() == [-1, 1, 0]
    assert rows[0, PARTICLE_COLUMNS.slice("pt", "energy")].tolist() == [10, 11, 12, 13, 14]


def test_neutral_classes_have_no_charge_whatever_the_charge_head_says():
    (rows,) = rows_from_outputs(outputs_of([2, 3], [-1, 1]), [2])
    assert rows[:, PARTICLE_COLUMNS.index("charge")].tolist() == [0, 0]


def test_elements_of_class_none_carry_nothing_and_padding_is_cut():
    (rows,) = rows_from_outputs(outputs_of([0, 1, 3], [1, 1, 1]), [2])
    assert rows.shape == (2, 7)
    assert not rows[0].any()
    assert ParticleLists.from_rows([rows]).cls.tolist() == [1]


def test_wrong_number_of_logits_is_an_error():
    outputs = outputs_of([1], [0])
    outputs["cls"] = outputs["cls"][..., :4]
    with pytest.raises(ValueError, match="4 logits, expected 6"):
        rows_from_outputs(outputs, [1])


def test_targets_and_particle_rows_give_the_same_list():
    rows = particle_rows(cls=[1, 0, 3], charge=[1, 0, 0], pt=[3, 0, 4], eta=[0, 0, 1], phi=[0, 0, 2])
    from_rows = ParticleLists.from_rows([rows, rows[:0]])
    from_targets = ParticleLists.from_rows([as_targets(rows), as_targets(rows[:0])])
    assert from_rows.counts.tolist() == from_targets.counts.tolist() == [2, 0]
    assert from_rows.pt.tolist() == from_targets.pt.tolist() == [3, 4]
    assert from_rows.phi == pytest.approx([0, 2], abs=1e-6)  # float32 sine and cosine


def test_rows_of_another_width_are_an_error():
    with pytest.raises(ValueError, match=r"event 1: particles of shape \(2, 5\)"):
        ParticleLists.from_rows([np.zeros((1, 7)), np.zeros((2, 5))])


def test_missing_momentum_is_the_length_of_the_vector_sum():
    rows = particle_rows(cls=[1, 1], charge=[1, 1], pt=[3, 4], eta=[0, 2], phi=[0, np.pi / 2])
    lists = ParticleLists.from_rows([rows, rows[:0], rows[:1]])
    assert lists.missing_momentum() == pytest.approx([5, 0, 3], abs=1e-5)  # float32 inputs


def test_selection_keeps_empty_events():
    rows = particle_rows(cls=[1, 3], charge=[1, 0], pt=[3, 4], eta=[0, 2], phi=[0, 1])
    lists = ParticleLists.from_rows([rows[:1], rows])
    photons = lists.select(lists.cls == 3)
    assert photons.counts.tolist() == [0, 1]
    assert photons.event.tolist() == [1]
    assert photons.pt.tolist() == [4]


def test_elements_keep_every_element_with_its_classes():
    events = dijet_events(2)
    X, targets = [e["X"] for e in events], [e["ygen"] for e in events]
    elements = Elements.from_rows(X, {"target": targets})
    assert elements.counts.tolist() == [12, 12]
    assert elements.elemtype.tolist() == ([1] * 6 + [2] * 6) * 2
    assert elements.cls["target"].tolist() == ([1] * 6 + [3] * 4 + [0] * 2) * 2
    assert elements.energy["target"].shape == (24,)


def test_threshold_keeps_an_element_that_two_classes_share():
    # none 0.4 is the largest logit, but its sigmoid 0.6 is below 0.7: a photon, the largest of the others
    outputs = outputs_of([0], [0])
    outputs["cls"] = np.array([[[0.4, -3.0, 0.2, 0.3, -3.0, -3.0]]], dtype=np.float32)
    cls = PARTICLE_COLUMNS.index("cls")
    assert rows_from_outputs(outputs, [1])[0][0, cls] == 0
    assert rows_from_outputs(outputs, [1], none_threshold=0.7)[0][0, cls] == 3
    assert rows_from_outputs(outputs, [1], none_threshold=0.55)[0][0, cls] == 0
