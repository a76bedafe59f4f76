import json

import numpy as np
import pytest

from mlpf.runs import data as training_data
from mlpf.workflows import find_lr
from tests.support.fake_split import FakeSplit
from tests.support.fake_training import tiny_config


@pytest.fixture(autouse=True)
def _fake_data(monkeypatch):
    monkeypatch.setattr(training_data, "open_split", lambda *_: FakeSplit(24, seed=1, max_elements=20))


@pytest.mark.parametrize(
    "setup",
    [
        {"lr_schedule": "onecycle", "optimizer": "sgd", "clipnorm": 1.0},
        {"lr_schedule": "cosinedecay", "lr_warmup_steps": 5, "gradient_accumulation_steps": 2, "ema": 0.9},
        pytest.param({"lr_schedule": "exponentialdecay", "dtype": "mixed_float16"}, marks=pytest.mark.slow),
    ],
    ids=lambda setup: setup["lr_schedule"],
)
def test_the_rate_rises_whatever_the_schedule(tmp_path, setup):
    config = tiny_config(**{f"setup.{key}": value for key, value in setup.items()})

    result = find_lr.run(config, tmp_path / "new", min_lr=1e-5, max_lr=10.0, steps=13, stop_factor=1e9)

    done = len(result["rates"])
    np.testing.assert_allclose(result["rates"], np.geomspace(1e-5, 10.0, 13)[:done], rtol=1e-5)
    assert done == 13 or "not finite" in result["stopped"]
    assert len(result["losses"]) == len(result["smoothed"]) == done > 6
    assert len(set(result["losses"])) == done
    assert json.loads((tmp_path / "new" / "lr_finder.json").read_text(encoding="utf-8")) == result
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"lr_finder.json", "lr_finder.png", "lr_finder.pdf"}


def test_it_stops_where_the_loss_grows(tmp_path):
    config = tiny_config(**{"setup.optimizer": "adam"})

    result = find_lr.run(config, tmp_path, min_lr=1e-3, max_lr=1e4, steps=60, stop_factor=1.5)

    assert len(result["rates"]) < 60
    assert "exceeds 1.5 times" in result["stopped"] or "not finite" in result["stopped"]
