import subprocess
import sys

import pytest
import yaml

from mlpf.config import load_config
from mlpf.config.schema import Config
from mlpf.config.search.check import check_search
from mlpf.config.search.space import trial_config
from mlpf.errors import ConfigError
from tests.support.configs import SMALL, searching

LAYER = "parameters.combined_graph_layer."
HEADS = {"parameters.hidden_dim": {"choice": [64, 100]}, "parameters.block.num_heads": {"choice": [8, 20]}}
TRANSFORMER = {"model": "transformer"}


def problems(*args, **kwargs):
    with pytest.raises(ConfigError) as error:
        check_search(searching(*args, **kwargs))
    return str(error.value).splitlines()


def test_a_configuration_without_search_passes():
    check_search(Config.model_validate(SMALL))


@pytest.mark.parametrize("name", ["clic-demo", "clic", "clic-transformer"])
def test_configurations_to_search_with_pass(repo_root, name):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    check_search(config)
    base = load_config(repo_root / "parameters" / f"{name}.yaml")
    assert config.model_copy(update={"hypertune": None}) == base


@pytest.mark.parametrize(
    ("path", "space", "message"),
    [
        (f"{LAYER}binsize", {"int": [1, 2]}, f"unknown key (did you mean '{LAYER}bin_size'?)"),
        ("combined_graph_layer.bin_size", {"int": [1, 2]}, f"unknown key (did you mean '{LAYER}bin_size'?)"),
        ("nonsense", {"int": [1, 2]}, "unknown key; known here: dataset, loss"),
        ("setup.lr.x", {"int": [1, 2]}, "lr is a value, not a section"),
        (
            "parameters.hidden_dim",
            {"int": [1, 2]},
            "a key of the model transformer, but parameters.model is gnn",
        ),
        (
            "train_test_datasets.gun.batch_per_gpu",
            {"int": [1, 2]},
            "no group of datasets 'gun'; there are phys",
        ),
        ("setup.lr", {"float": [-1, 1]}, "input should be greater than 0 (given -1.0)"),
        (f"{LAYER}dropout", {"float": [0, 1]}, "input should be less than 1 (given 1.0)"),
        (f"{LAYER}bin_size", {"float": [16, 64]}, "fractional part"),
        (f"{LAYER}bin_size", {"choice": [8, "many"]}, "unable to parse string as an integer (given 'many')"),
        ("setup.optimizer", {"choice": ["adam", "adamax"]}, "(given 'adamax')"),
        ("setup.lr_warmup_steps", {"boolean": True}, "False would be read as 0; give 0 itself"),
        ("parameters.use_normalizer", {"choice": [0, 1]}, "0 would be read as False; give False itself"),
        ("train_test_datasets.physical.batch_per_gpu", {"int": [0, 2]}, "greater than 0 (given 0)"),
        ("setup.lr", {"float": [0.1, 1], "also": ["setup.emma"]}, "unknown key (did you mean 'setup.ema'?)"),
        (
            "setup.ema",
            {"float": [0.1, 0.9], "also": ["setup.seed"]},
            "cannot be searched, the best seed is luck",
        ),
        (
            "setup.num_epochs",
            {"int": [1, 2]},
            "cannot be searched, every trial trains a part of the same length",
        ),
        ("hypertune.factor", {"int": [2, 3]}, "cannot be searched, it describes the search itself"),
        ("datasets.a.version", {"choice": ["1"]}, "cannot be searched, trials would be judged on different"),
        ("train_test_datasets.physical.datasets", {"choice": [["a"]]}, "judged on different events"),
        ("callbacks.physics.every", {"int": [1, 2]}, "cannot be searched, it says what is recorded"),
    ],
)
def test_keys_and_values_that_the_configuration_does_not_have(path, space, message):
    (line,) = problems({path: space})
    assert line.startswith("hypertune.space  ")
    assert message in line


def test_all_problems_are_reported_at_once():
    space = {"setup.lr": {"float": [-1, 1]}, "setup.lrr": {"boolean": True}, "setup.seed": {"int": [1, 2]}}
    lines = problems(space, objective="val_los", algorithm="random", min_epochs=2)
    assert len(lines) == 5


def test_free_mappings_can_be_searched():
    check_search(
        searching(
            {
                "train_test_datasets.physical.batch_per_gpu": {"choice": [4, 8]},
                "train_test_datasets.physical.weights.a": {"float": [0.5, 2]},
            }
        )
    )


def test_a_section_and_a_key_in_it_are_not_searched_together():
    space = {
        f"{LAYER}kernel": {"choice": [{"dist_mult": 0.1}]},
        f"{LAYER}kernel.dist_mult": {"float": [0.1, 1]},
    }
    (line,) = problems(space)
    assert f"{LAYER}kernel.dist_mult: lies within {LAYER}kernel" in line


def test_a_value_that_no_trial_accepts_is_named():
    space = {**HEADS, "parameters.hidden_dim": {"choice": [64, 100, 97]}}
    (line,) = problems(space, TRANSFORMER)
    assert line == (
        "hypertune.space  parameters.hidden_dim: 97 is refused with all values of the other keys that were "
        "tried: block.num_heads=8 does not divide hidden_dim=97; change one of them; remove it, or search "
        "parameters.hidden_dim only `when` another key has values that fit"
    )


def test_values_that_are_refused_together_end_a_trial_and_not_the_search():
    config = searching(HEADS, TRANSFORMER)
    check_search(config)
    values = {"parameters.hidden_dim": 64, "parameters.block.num_heads": 20}
    with pytest.raises(ConfigError, match="num_heads=20 does not divide hidden_dim=64"):
        trial_config(config, values)


def test_a_value_that_fits_with_the_other_searched_keys_only_passes():
    # 100 with the 8 heads of the base is refused, with the 20 of the space it is not
    space = {**HEADS, "parameters.hidden_dim": {"choice": [100, 200]}}
    space["parameters.block.num_heads"] = {"choice": [20]}
    check_search(searching(space, TRANSFORMER))


def test_a_value_that_the_rest_of_the_configuration_refuses_says_why():
    (line,) = problems(
        {"setup.lr_schedule": {"choice": ["onecycle"]}}, base={"setup.lr_warmup_steps": 5}.items()
    )
    assert "'onecycle' is refused with all values" in line
    assert "which begins with its own warm-up" in line


def test_what_only_the_network_would_refuse():
    alone = {"parameters.do_node_encoding": {"boolean": True}}
    (line,) = problems(alone)
    assert "parameters.do_node_encoding: False is refused with all values of the other keys" in line
    check_search(searching({**alone, "parameters.node_update_mode": {"choice": ["additive", "concat"]}}))


def test_problems_have_file_and_line(tmp_path):
    path = tmp_path / "search.yaml"
    space = {"setup.lr": {"float": [-1, 1]}, "setup.lrr": {"boolean": True}}
    data = {**SMALL, "hypertune": {"algorithm": "random", "min_epochs": 2, "space": space}}
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    with pytest.raises(ConfigError) as error:
        check_search(load_config(path), path)
    where = [
        f"{path}:{lines.index(text) + 1}" for text in ("  min_epochs: 2", "    setup.lr:", "    setup.lrr:")
    ]
    found = str(error.value).splitlines()
    assert [line.split("  ")[0] for line in found] == where


def test_problems_with_a_ready_space_have_its_file(tmp_path):
    path = tmp_path / "search.yaml"
    data = {**SMALL, "parameters": TRANSFORMER, "hypertune": {"space": "gnn_dense", "objective": "val_los"}}
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        check_search(load_config(path), path)
    objective, *keys = str(error.value).splitlines()
    assert objective.startswith(f"{path}:")
    assert keys
    assert all("gnn_dense_space.yaml:" in line.split("  ")[0] for line in keys)


def test_an_objective_that_some_trials_do_not_record():
    (line,) = problems({"loss.energy_loss_coef": {"choice": [0.0, 1.0]}}, objective="val_energy_loss")
    assert "loss.energy_loss_coef: with 0.0, 'val_energy_loss' is not recorded" in line


def test_variants_of_a_section_can_be_searched():
    trainable = {f"{LAYER}kernel.type": "NodePairTrainableKernel"}
    check_search(
        searching(
            {
                f"{LAYER}kernel.type": {"choice": ["NodePairGaussianKernel", "NodePairTrainableKernel"]},
                f"{LAYER}node_message.type": {"choice": ["NodeMessageLearnable"], "when": trainable},
                f"{LAYER}kernel.num_channels": {"int": [2, 4], "when": trainable},
            }
        )
    )


@pytest.mark.parametrize(
    ("hypertune", "message"),
    [
        ({"algorithm": "random", "factor": 4}, "hypertune.factor: belongs to hyperband, asha, not to random"),
        ({"algorithm": "bayesian", "min_epochs": 2}, "hypertune.min_epochs: belongs to hyperband, asha"),
        ({"algorithm": "asha", "iterations": 2}, "hypertune.iterations: belongs to hyperband, not to asha"),
        ({"algorithm": "bayesian", "num_trials": 3}, "the first 3 trials are drawn (three per searched key"),
        (
            {"algorithm": "bayesian", "initial_points": 16},
            "hypertune.num_trials is 16: none would be guessed",
        ),
        ({"algorithm": "asha", "initial_points": 2}, "hypertune.initial_points: belongs to bayesian"),
        (
            {"algorithm": "hyperband", "num_trials": 9},
            "hypertune.num_trials: belongs to random, bayesian, asha",
        ),
        (
            {"algorithm": "asha", "min_epochs": 51},
            "hypertune.min_epochs: 51 x factor 3 is more than setup.num_epochs 150, so no trial could be",
        ),
        (
            {"algorithm": "hyperband", "min_epochs": 38, "factor": 4},
            "hypertune.min_epochs: 38 x factor 4 is more than setup.num_epochs 150",
        ),
        ({"objective": "val_lose"}, "hypertune.objective: 'val_lose' is not recorded; choose one of loss"),
        (
            {"objective": "val_jet_response_median"},
            "a smaller val_jet_response_median is not better",
        ),
        ({"objective": {"val_loss": -1.0}}, "weight -1 would maximise val_loss"),
    ],
)
def test_settings_that_do_not_fit(hypertune, message):
    (line,) = problems({"setup.lr": {"float": [0.1, 0.2]}}, **hypertune)
    assert message in line


def test_an_objective_that_the_first_trials_do_not_record():
    space = {"setup.lr": {"float": [0.1, 0.2]}}
    (line,) = problems(
        space, base={"callbacks.physics.every": 5}.items(), objective="val_jet_iqr", min_epochs=2
    )
    assert "recorded every 5 epochs (callbacks.physics.every), but the first trials end after 2" in line
    check_search(
        searching(space, base={"callbacks.physics.every": 5}.items(), objective="val_jet_iqr", min_epochs=5)
    )


@pytest.mark.parametrize(
    ("key", "objective", "redefined"),
    [
        ("loss.pt_loss_coef", "val_loss", True),
        ("loss.pt_loss_coef", "val_pt_loss", False),
        ("loss.pt_loss_coef", "val_jet_iqr", False),
        ("loss.pt_loss.delta", "val_pt_loss", True),
        ("loss.pt_loss.delta", "val_eta_loss", False),
        ("loss.reg_weight_by_pt", "val_eta_loss", True),
    ],
)
def test_the_objective_means_the_same_in_all_trials(key, objective, redefined):
    space = {key: {"boolean": True} if "weight" in key else {"float": [1.0, 2.0]}}
    if not redefined:
        check_search(searching(space, objective=objective))
        return
    (line,) = problems(space, objective=objective)
    assert f"{key}: changes what {objective} means" in line


def test_the_check_needs_nothing_heavy(repo_root):
    code = (
        "import sys; from mlpf.config import load_config; from mlpf.config.search.check import check_search;"
        "check_search(load_config('parameters/clic-hypertune.yaml'));"
        "print({'tensorflow', 'keras', 'keras_tuner', 'mlpf.models'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "."},
    )
    assert done.stdout.strip() == "set()"
