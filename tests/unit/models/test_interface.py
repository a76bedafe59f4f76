import numpy as np
import pytest
import tensorflow as tf

from mlpf.models.interface import ELEMTYPE, element_mask, finite_or_zero
from mlpf.physics.schemas import SCHEMAS


@pytest.mark.parametrize("kind", [kind for schema in SCHEMAS.values() for kind in schema.kinds])
def test_the_type_is_in_the_same_column_of_every_kind_of_element(kind):
    assert kind.features.names[ELEMTYPE] == "elemtype"
    assert kind.elemtype != 0


@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_padding_is_what_has_no_type(convert):
    X = np.ones((1, 3, 4), np.float32)
    X[0, :, ELEMTYPE] = [1, 2, 0]
    assert np.asarray(element_mask(convert(X))).tolist() == [[True, True, False]]


def test_what_is_not_finite_becomes_zero():
    X = np.array([[[1.0, np.nan, np.inf], [np.nan, -np.inf, -2.0]]], np.float32)
    clean = finite_or_zero(tf.constant(X))
    assert np.asarray(clean).tolist() == [[[1.0, 0.0, 0.0], [0.0, 0.0, -2.0]]]
    assert np.asarray(element_mask(clean)).tolist() == [[True, False]]
