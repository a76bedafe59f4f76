"""Random events have the columns of their schema, and columns that agree with each other."""

import numpy as np
import pytest

from mlpf.config.detector import CLIC
from mlpf.physics.random_events import sample_events
from mlpf.physics.schemas import SCHEMAS
from tests.support.events import clic_like_events

KINDS = [(schema, kind) for schema in SCHEMAS.values() for kind in schema.kinds]


def rows_of(schema, kind):
    x = sample_events(schema, 2, 100, CLIC if schema.has_positions else None, seed=1)
    assert x.shape == (2, 100, schema.num_features)
    rows = x[x[..., 0] == kind.elemtype]
    return {name: rows[:, kind.features.index(name)] for name in kind.features.names}


@pytest.mark.parametrize(("schema", "kind"), KINDS)
def test_momentum_and_direction_agree(schema, kind):
    columns = rows_of(schema, kind)
    transverse, total = ("pt", "p") if "pt" in columns else ("et", "energy")
    np.testing.assert_allclose(columns[total], columns[transverse] * np.cosh(columns["eta"]), rtol=1e-5)
    np.testing.assert_allclose(columns["sin_phi"] ** 2 + columns["cos_phi"] ** 2, 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["clic", "clic_hits"])
def test_positions_are_behind_the_calorimeter_face(name):
    schema = SCHEMAS[name]
    columns = rows_of(schema, schema.kinds[1])
    radius = np.hypot(columns["position.x"], columns["position.y"])
    assert ((radius > 1500) | (np.abs(columns["position.z"]) > 2307)).all()
    np.testing.assert_allclose(np.arcsinh(columns["position.z"] / radius), columns["eta"], atol=1e-4)


@pytest.mark.parametrize("schema", list(SCHEMAS.values()), ids=lambda schema: schema.name)
def test_a_tenth_is_padding_at_the_end(schema):
    x = sample_events(schema, 1, 50, CLIC if schema.has_positions else None)
    assert np.flatnonzero(x[0, :, 0] == 0).tolist() == [45, 46, 47, 48, 49]
    assert not x[0, 45:].any()


def test_events_follow_from_the_seed():
    np.testing.assert_array_equal(clic_like_events(1, 20, seed=3), clic_like_events(1, 20, seed=3))
    assert not np.array_equal(clic_like_events(1, 20, seed=3), clic_like_events(1, 20, seed=4))
