import numpy as np
import pytest

from mlpf.physics.features import PARTICLE_COLUMNS


def test_columns_go_where_their_names_say():
    rows = PARTICLE_COLUMNS.stack({"energy": np.array([3.0, 4.0]), "cls": np.array([3, 2])})
    assert rows.tolist() == [[3, 0, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 0, 4]]


def test_an_unknown_column_is_refused():
    with pytest.raises(KeyError, match="mass"):
        PARTICLE_COLUMNS.stack({"mass": np.zeros(2)})
