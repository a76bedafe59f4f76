import pytest

from mlpf.config import load_config, write_resolved
from mlpf.config.loading import load_with_places
from mlpf.errors import ConfigError
from tests.support.configs import MINIMAL, write_config


def lines_of(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return str(error.value).splitlines()


def test_minimal_file_loads_with_defaults(tmp_path):
    config = load_config(write_config(tmp_path))
    assert config.parameters.combined_graph_layer.bin_size == 256
    assert config.datasets["clic_edm4hep/ttbar"].version == "1.0.0"


def test_missing_file_says_where_to_look(tmp_path):
    with pytest.raises(
        ConfigError, match=r"absent\.yaml: no such file; .* one of clic, clic-demo, .*config list"
    ):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match=r"clic-demo\.yaml: no such file; the package has clic-demo: give"):
        load_config(tmp_path / "parameters" / "clic-demo.yaml")


def test_a_configuration_of_the_package_is_found_by_name_from_anywhere(tmp_path, monkeypatch, repo_root):
    shipped = load_config(repo_root / "parameters" / "clic-demo.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_config("clic-demo") == shipped
    (tmp_path / "clic-demo").mkdir()  # of a run, say
    assert load_config("clic-demo") == shipped
    (tmp_path / "mine.yaml").write_text("extends: clic-demo\nsetup: {lr: 0.125}\n", encoding="utf-8")
    mine = load_config("mine.yaml")
    assert mine.setup.lr == 0.125
    assert mine.parameters == shipped.parameters
    with pytest.raises(
        ConfigError, match=r"no configuration of this name \(did you mean 'clic-hits'\?\), it"
    ):
        load_config("clic-hit")


def test_a_file_without_suffix_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clic", "plain"):
        write_config(tmp_path, "setup: {lr: 0.125}\n", name)
        assert load_config(name).setup.lr == 0.125
    (tmp_path / "below").mkdir()
    with pytest.raises(ConfigError, match=r"below/clic: no such file"):
        load_config("below/clic")


def test_unknown_key_gives_file_line_and_suggestion(tmp_path):
    path = write_config(tmp_path, "loss:\n  cls_loss:\n    gama: 1.0\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    line = MINIMAL.count("\n") + 3
    assert lines_of(error) == [f"{path}:{line}  loss.cls_loss.gama: unknown key (did you mean 'gamma'?)"]


def test_unknown_key_under_a_dataset_name_gets_a_suggestion(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(MINIMAL.replace("data_dir: nowhere", "datadir: nowhere"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"datadir: unknown key \(did you mean 'data_dir'\?\)"):
        load_config(path)


def test_all_problems_are_reported_at_once(tmp_path):
    path = write_config(tmp_path, "setup:\n  lr: fast\n  num_epochs: 0\nbatchin: {}\n")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    text = str(error.value)
    assert len(lines_of(error)) == 3
    assert "setup.lr" in text
    assert "(given 'fast')" in text
    assert "setup.num_epochs" in text
    assert "did you mean 'batching'?" in text


def test_missing_required_key_is_named(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(MINIMAL.replace("validation_dataset: clic_edm4hep/ttbar\n", ""), encoding="utf-8")
    with pytest.raises(ConfigError, match="validation_dataset: required key is missing"):
        load_config(path)


def test_dataset_that_is_not_listed_is_named(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        MINIMAL.replace("validation_dataset: clic_edm4hep/ttbar", "validation_dataset: other"),
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="not listed under datasets: validation_dataset: other"):
        load_config(path)


def test_duplicate_key_is_an_error(tmp_path):
    path = write_config(tmp_path, "setup: {lr: 1.0}\nsetup: {lr: 2.0}\n")
    with pytest.raises(ConfigError, match="setup: key given twice, first on line"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not valid YAML"), ("- 1\n", "expected a mapping"), ("", "expected a mapping")],
)
def test_text_that_is_no_mapping_is_an_error(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize("value", ["!foo 1", "2024-13-45"])
def test_values_that_yaml_cannot_build_are_errors(tmp_path, value):
    with pytest.raises(ConfigError, match="a value cannot be read"):
        load_config(write_config(tmp_path, f"setup: {{lr: {value}}}\n"))


def test_binary_file_is_an_error(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        load_config(path)


def test_override_changes_the_value_and_reads_exponents(tmp_path):
    config = load_config(write_config(tmp_path), ["setup.lr=1e-4", "parameters.use_normalizer=true"])
    assert config.setup.lr == pytest.approx(1e-4, abs=1e-12)
    assert config.parameters.use_normalizer is True


def test_bad_override_is_named_as_the_source(tmp_path):
    with pytest.raises(ConfigError, match=r"--set setup.lrr=1  setup.lrr: unknown key \(did you mean 'lr'"):
        load_config(write_config(tmp_path), ["setup.lrr=1"])
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        load_config(write_config(tmp_path), ["setup.lr"])
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_config(write_config(tmp_path), ["validation_dataset.x.y=1"])


def test_command_line_shortcut_wins_over_override(tmp_path):
    config = load_config(write_config(tmp_path), ["setup.num_epochs=3"], {"setup.num_epochs": 5})
    assert config.setup.num_epochs == 5


def test_resolved_file_loads_to_the_same_configuration(tmp_path):
    config = load_config(write_config(tmp_path), ["setup.lr=0.5"])
    write_resolved(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_configuration_cannot_be_changed_after_loading(tmp_path):
    config = load_config(write_config(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        config.setup.lr = 1.0  # type: ignore[misc]


def test_delta_without_huber_is_refused(tmp_path):
    path = write_config(tmp_path, "loss: {pt_loss: {type: LogCosh, delta: 1.0}}\n")
    with pytest.raises(ConfigError, match="delta belongs to Huber"):
        load_config(path)


def test_with_data_dir_moves_every_dataset(tmp_path):
    config = load_config(write_config(tmp_path)).with_data_dir("elsewhere")
    assert {s.data_dir for s in config.datasets.values()} == {"elsewhere"}


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        "setup: &s {lr: *s}\n",
    ],
    ids=["aliases of aliases", "an alias of itself"],
)
def test_aliases_cannot_blow_up(tmp_path, text):
    with pytest.raises(ConfigError, match="more than 10000 values"):
        load_config(write_config(tmp_path, text))


def test_nesting_without_end_is_one_error(tmp_path):
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_config(write_config(tmp_path, "setup: " + "[" * 5000))


def test_an_alias_stands_for_its_value(tmp_path):
    text = "setup: {lr: &lr 0.5}\noptimizer: {adamw: {weight_decay: *lr}}\n"
    assert load_config(write_config(tmp_path, text)).optimizer.adamw.weight_decay == 0.5


def test_keys_of_a_model_are_named_without_its_name(tmp_path):
    text = "parameters: {model: transformer, hidden_dimm: 3, block: {num_headz: 2}}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path, text))
    message = str(caught.value)
    assert "parameters.hidden_dimm: unknown key (did you mean 'hidden_dim'?)" in message
    assert "parameters.block.num_headz: unknown key (did you mean 'num_heads'?)" in message


def test_an_unknown_model_lists_those_that_exist(tmp_path):
    with pytest.raises(ConfigError, match="parameters: no model 'gnn', expected one of gnn_dense, transf"):
        load_config(write_config(tmp_path, "parameters: {model: gnn}\n"))


TRAINABLE = "kernel: {type: NodePairTrainableKernel}, node_message: {type: NodeMessageLearnable}"


@pytest.mark.parametrize(
    ("graph_layer", "message"),
    [
        ("kernel: {dist_mul: 1.0}", "kernel.dist_mul: unknown key (did you mean 'dist_mult'?)"),
        (
            TRAINABLE.replace("Kernel}", "Kernel, dist_mult: 1.0}"),
            "kernel.dist_mult: unknown key; known here: type, node_dim, ",
        ),
        (
            "kernel: {type: Gauss}",
            "kernel: no type 'Gauss', expected one of NodePairGaussianKernel, NodePairTrainableKernel",
        ),
        ("node_message: {type: [1]}", "node_message: no type [1], expected one of GHConvDense, NodeMess"),
        ("kernel: wide", "kernel: expected a section (given 'wide')"),
        (
            "kernel: {type: NodePairTrainableKernel}",
            "kernel.type=NodePairTrainableKernel needs node_message.type=NodeMessageLearnable, not GHConv",
        ),
    ],
)
def test_keys_of_variants_are_named_without_the_variant(tmp_path, graph_layer, message):
    text = f"parameters: {{combined_graph_layer: {{{graph_layer}}}}}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path, text))
    assert len(lines_of(caught)) == 1
    assert message in str(caught.value)


def test_variants_survive_writing_and_reading(tmp_path):
    text = f"parameters: {{combined_graph_layer: {{{TRAINABLE}}}}}\n"
    config = load_config(write_config(tmp_path, text), ["parameters.combined_graph_layer.kernel.node_dim=5"])
    assert config.parameters.combined_graph_layer.kernel.node_dim == 5
    write_resolved(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config


def test_a_file_on_top_of_another(tmp_path):
    write_config(tmp_path, "setup: {lr: 0.1, num_epochs: 3}\n", name="base.yaml")
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / "top.yaml"
    path.write_text(
        "extends: ../base.yaml\n"
        "setup: {lr: 0.2}\n"
        "train_test_datasets: {gun: {batch_per_gpu: 2, datasets: [clic_edm4hep/ttbar]}}\n",
        encoding="utf-8",
    )
    config = load_config(path, ["setup.seed=5"])
    assert (config.setup.lr, config.setup.num_epochs, config.setup.seed) == (0.2, 3, 5)
    assert list(config.train_test_datasets) == ["physical", "gun"]
    (tmp_path / "last.yaml").write_text("extends: below/top.yaml\nsetup: {num_epochs: 4}\n", encoding="utf-8")
    assert load_config(tmp_path / "last.yaml").setup.model_dump(include={"lr", "num_epochs"}) == {
        "lr": 0.2,
        "num_epochs": 4,
    }


def test_another_variant_and_searched_values_take_nothing_from_below(tmp_path):
    write_config(
        tmp_path,
        "parameters: {num_graph_layers_id: 2}\n"
        "hypertune: {num_trials: 3, space: {setup.lr: {float: [0.1, 1.0]}, setup.ema: {choice: [0.9]}}}\n",
        name="base.yaml",
    )
    path = tmp_path / "top.yaml"
    path.write_text(
        "extends: base.yaml\n"
        "parameters: {model: transformer}\n"
        "hypertune: {space: {setup.lr: {choice: [0.1]}}}\n",
        encoding="utf-8",
    )
    config = load_config(path)
    assert config.parameters.model == "transformer"
    assert config.hypertune.num_trials == 3
    assert list(config.hypertune.space) == ["setup.lr", "setup.ema"]
    assert config.hypertune.space["setup.lr"].choice == [0.1]
    path.write_text("extends: base.yaml\nparameters: {model: gnn_dense}\n", encoding="utf-8")
    assert load_config(path).parameters.num_graph_layers_id == 2


def test_errors_name_the_file_in_which_the_value_stands(tmp_path):
    base = write_config(tmp_path, "setup: {lr: -1}\nbatching: {bucket_growth: 0}\n", name="base.yaml")
    top = tmp_path / "top.yaml"
    top.write_text(
        "extends: base.yaml\nsetup:\n  ema: 2\nbatching:\n  bucket_growth: 0.5\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as error:
        load_config(top)
    assert [line.split("  ")[0] for line in lines_of(error)] == [
        f"{base}:{MINIMAL.count(chr(10)) + 1}",
        f"{top}:3",
        f"{top}:5",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "extends: absent.yaml",
            r"top\.yaml:1  extends: .*absent\.yaml: no such file; the path is relative to",
        ),
        (
            "extends: parameters/clic-demo.yaml",
            r"clic-demo\.yaml: no such file; .*did you mean extends: clic-demo \(of the package\)",
        ),
        ("extends: clic-dmo", r"top\.yaml:1  extends: clic-dmo: the package has no .*mean 'clic-demo'"),
        ("extends: [a.yaml]", r"top\.yaml:1  extends: expected the path of a file, relative to this one"),
        ("extends: top.yaml", r"extends: top\.yaml is or extends this file itself"),
        ("setup: {}\nextends: circle.yaml", r"circle\.yaml:1  extends: top\.yaml is or extends this file"),
        ("extends: broken.yaml", r"broken\.yaml:\d+  not valid YAML"),
    ],
)
def test_files_that_cannot_be_extended(tmp_path, text, message):
    (tmp_path / "circle.yaml").write_text("extends: top.yaml\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("a: [1\n", encoding="utf-8")
    (tmp_path / "top.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "top.yaml")


def test_the_place_of_a_value_is_known(tmp_path):
    path = write_config(tmp_path, "setup:\n  lr: 0.1\n  seed: 3\n")
    line = path.read_text(encoding="utf-8").splitlines().index("  lr: 0.1") + 1
    config, place_of = load_with_places(path, ["setup.seed=4"], {"setup.num_epochs": 2})
    assert (config.setup.lr, config.setup.seed, config.setup.num_epochs) == (0.1, 4, 2)
    assert place_of("setup.lr") == f"{path}:{line}"
    assert place_of("setup.seed") == "--set setup.seed=4"
    assert place_of("setup.num_epochs") == "command line"
    assert place_of("setup.ema") == f"{path}:{line - 1}"  # the section; the value is the default
    assert place_of("callbacks.tensorboard") == str(path)
