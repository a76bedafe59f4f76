import json

import numpy as np
import pytest
import yaml

from mlpf.config import load_config
from mlpf.errors import CheckpointError, OutputExists
from mlpf.models.interface import OUTPUT_NAMES
from mlpf.runs.trained import load_run_config, load_trained_model
from mlpf.workflows import import_weights
from tests.support.configs import write_config
from tests.support.models import tiny_config, tiny_model
from tests.support.numpy_gnn import write_published


@pytest.fixture
def config(tmp_path):
    return load_config(write_config(tmp_path, yaml.safe_dump({"parameters": tiny_config().model_dump()})))


@pytest.fixture
def published(tmp_path):
    write_published(tmp_path / "a.hdf5", tiny_model())
    return tmp_path / "a.hdf5"


def test_the_run_directory_gives_the_imported_network(config, published, tmp_path, rng):
    import_weights.run(config, published, tmp_path / "run")
    assert load_run_config(tmp_path / "run") == config
    expected = tiny_model()
    import_weights.load_published_weights(published, expected)
    X = rng.normal(size=(1, 20, 17)).astype(np.float32)
    X[..., 0] = 1
    for which in ("best", "latest"):
        model, checkpoint = load_trained_model(tmp_path / "run", config, which)
        assert checkpoint.name == "imported"
        for name in OUTPUT_NAMES:
            np.testing.assert_array_equal(model(X)[name], expected(X)[name])
    assert (
        json.loads((tmp_path / "run/checkpoints/best.json").read_text(encoding="utf-8"))["source"] == "a.hdf5"
    )


def test_nothing_is_left_when_the_weights_do_not_fit(published, tmp_path):
    other = tiny_config(node_encoding_hidden_dim=9).model_dump()
    config = load_config(write_config(tmp_path, yaml.safe_dump({"parameters": other})))
    with pytest.raises(CheckpointError, match="of another shape: node_encoding_dense_0/bias"):
        import_weights.run(config, published, tmp_path / "out" / "run")
    assert not (tmp_path / "out").exists()


def test_a_run_that_exists_is_not_replaced(config, published, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(OutputExists, match="exists already"):
        import_weights.run(config, published, tmp_path / "run")
    assert (tmp_path / "run" / "precious").exists()
