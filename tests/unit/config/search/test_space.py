import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpf.config import load_config
from mlpf.config.schema import Config
from mlpf.config.search.schema import full_conditions, same_value
from mlpf.config.search.space import check_search, load_space, ready_spaces, trial_config
from mlpf.errors import ConfigError
from tests.support.configs import SMALL

LAYER = "parameters.combined_graph_layer."
HEADS = {"parameters.hidden_dim": {"choice": [64, 100]}, "parameters.block.num_heads": {"choice": [8, 20]}}


def search(space, parameters=None, base=(), **hypertune):
    data = SMALL if parameters is None else {**SMALL, "parameters": parameters}
    config = Config.model_validate({**data, "hypertune": {"space": space, **hypertune}})
    return config.with_overrides(dict(base))


def problems(*args, **kwargs):
    with pytest.raises(ConfigError) as error:
        check_search(search(*args, **kwargs))
    return str(error.value).splitlines()


def test_a_configuration_without_search_passes():
    check_search(Config.model_validate(SMALL))


def test_a_space_that_is_given_is_taken():
    assert load_space(search({"setup.lr": {"float": [0.1, 0.2]}}).hypertune)["setup.lr"].bounds == (0.1, 0.2)


def test_ready_spaces_are_those_of_the_models():
    assert ready_spaces() == ["gnn_dense", "transformer"]


def test_a_ready_space_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="no ready space 'gnn', expected one of gnn_dense, transformer"):
        load_space(search("gnn").hypertune)


@pytest.mark.parametrize("name", ["clic-demo", "clic", "clic-transformer"])
def test_configurations_to_search_with_pass(repo_root, name):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    check_search(config)
    base = load_config(repo_root / "parameters" / f"{name}.yaml")
    assert config.model_copy(update={"hypertune": None}) == base


@pytest.mark.parametrize("name", ["clic-demo", "clic", "clic-transformer"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_every_set_of_values_is_a_configuration(repo_root, name, data):
    config = load_config(repo_root / "parameters" / f"{name}-hypertune.yaml")
    space = load_space(config.hypertune)
    values = {}
    for key, needed in full_conditions(space).items():
        if all(any(same_value(values.get(k), v) for v in wanted) for k, wanted in needed.items()):
            known = space[key].values
            drawn = st.floats(*space[key].bounds) if known is None else st.sampled_from(list(known))
            values[key] = data.draw(drawn)
    trial = trial_config(config, values)
    assert trial.hypertune is None
    written = trial.model_dump(by_alias=True)
    for key, value in values.items():
        for path in (key, *space[key].also):
            node = written
            for part in path.split("."):
                node = node[part]
            assert node == value


def test_a_trial_has_its_values_and_its_seed():
    config = search({"setup.lr": {"float": [0.1, 0.2]}})
    trial = trial_config(config, {"setup.lr": 0.15}, seed=7)
    assert (trial.setup.lr, trial.setup.seed, trial.hypertune) == (0.15, 7, None)
    assert trial_config(config, {}).setup == config.setup


def test_a_refused_trial_names_its_values():
    with pytest.raises(
        ConfigError, match=r"setup\.lr=-1, .*=3: refused:  setup\.lr: input should be greater"
    ):
        trial_config(search("gnn_dense"), {"setup.lr": -1, f"{LAYER}bin_size": 3})


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
        search(
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


def test_a_refused_combination_is_named_with_a_way_out():
    (line,) = problems(HEADS, {"model": "transformer"})
    assert line == (
        "hypertune.space  parameters.hidden_dim=64, parameters.block.num_heads=20: block.num_heads=20 does "
        "not divide hidden_dim=64; change one of them; remove a value, or search one key only `when` another "
        "has values that fit (2 of 4 combinations looked at are refused)"
    )


def test_a_value_that_fits_with_the_other_searched_keys_only_passes():
    # 100 with the 8 heads of the base is refused, with the 20 of the space it is not
    space = {**HEADS, "parameters.hidden_dim": {"choice": [100, 200]}}
    space["parameters.block.num_heads"] = {"choice": [20]}
    check_search(search(space, {"model": "transformer"}))


def test_a_rare_combination_in_a_large_space_is_found():
    heads = {
        f"parameters.output_decoding.{name}_hidden_dim": {"int": [8, 12]} for name in ("pt", "eta", "phi")
    }
    layers = {
        f"parameters.output_decoding.{name}_num_layers": {"int": [1, 6]} for name in ("pt", "eta", "phi")
    }
    rare = {
        "setup.lr_schedule": {"choice": ["none", "cosinedecay", "exponentialdecay", "onecycle"]},
        "setup.lr_warmup_steps": {"choice": [0, 0.0 + 10, 20]},
    }
    (line,) = problems({**heads, **layers, **rare})
    assert "setup.lr_schedule=onecycle, setup.lr_warmup_steps=" in line


def test_when_avoids_a_refused_combination():
    check_search(
        search(
            {
                "setup.lr_schedule": {"choice": ["onecycle", "cosinedecay"]},
                "setup.lr_warmup_steps": {"choice": [10, 20], "when": {"setup.lr_schedule": "cosinedecay"}},
            }
        )
    )


def test_a_space_without_any_accepted_combination_says_why():
    (line,) = problems(
        {"setup.lr_schedule": {"choice": ["onecycle"]}}, base={"setup.lr_warmup_steps": 5}.items()
    )
    assert "which begins with its own warm-up" in line
    assert "(all combinations looked at are refused)" in line


def test_combinations_that_only_the_network_would_refuse():
    mode = {"parameters.node_update_mode": {"choice": ["additive", "concat"]}}
    (line,) = problems({**mode, "parameters.do_node_encoding": {"boolean": True}})
    assert "parameters.node_update_mode=additive, parameters.do_node_encoding=False" in line


def test_variants_of_a_section_can_be_searched():
    trainable = {f"{LAYER}kernel.type": "NodePairTrainableKernel"}
    check_search(
        search(
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
        search(space, base={"callbacks.physics.every": 5}.items(), objective="val_jet_iqr", min_epochs=5)
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
        check_search(search(space, objective=objective))
        return
    (line,) = problems(space, objective=objective)
    assert f"{key}: changes what {objective} means" in line


def test_an_objective_that_some_trials_do_not_record():
    lines = problems({"loss.energy_loss_coef": {"choice": [0.0, 1.0]}}, objective="val_energy_loss")
    assert "with values of the space, 'val_energy_loss' is not recorded" in lines[0]


def test_the_check_needs_nothing_heavy(repo_root):
    code = (
        "import sys; from mlpf.config import load_config; from mlpf.config.search.space import check_search;"
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
