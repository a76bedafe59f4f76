"""What follows from ``dataset.schema``, and what does not go with it."""

import pytest
from pydantic import ValidationError

from mlpf.config.data_schema import POSITION_COLUMNS, DatasetConfig
from mlpf.config.schema import Config
from mlpf.physics.schemas import SCHEMAS

MINIMAL = {
    "train_test_datasets": {"all": {"batch_per_gpu": 4, "datasets": ["a"]}},
    "validation_dataset": "a",
    "evaluation_datasets": {},
    "datasets": {"a": {"version": "1.0.0"}},
}


def config(schema, **parameters):
    return Config.model_validate({**MINIMAL, "dataset": {"schema": schema}, "parameters": parameters})


@pytest.mark.parametrize("schema", list(SCHEMAS.values()), ids=lambda schema: schema.name)
def test_numbers_follow_from_the_schema(schema):
    dataset = config(schema.name).dataset
    assert dataset.event_schema is schema
    assert dataset.num_input_features == schema.num_features
    assert dataset.num_input_classes == schema.num_element_types


def test_numbers_of_another_schema_are_refused():
    with pytest.raises(ValidationError, match="num_input_features=17 does not fit schema clic_hits"):
        DatasetConfig.model_validate({"schema": "clic_hits", "num_input_features": 17})


@pytest.mark.parametrize("name", ["clic", "clic_hits"])
def test_columns_of_positions_are_found_by_name(name):
    kinds = [kind.features for kind in SCHEMAS[name].kinds]
    places = DatasetConfig(schema=name).helix_columns
    for features, names in zip(kinds, POSITION_COLUMNS, strict=True):
        assert [features.names[places[column]] for column in names] == list(names)


def test_columns_of_positions_depend_on_the_schema():
    assert DatasetConfig(schema="clic").helix_columns != DatasetConfig(schema="clic_hits").helix_columns
    assert DatasetConfig(schema="delphes").helix_columns is None


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"input_encoding": "clic_helix"}, "parameters.input_encoding: clic_helix"),
        (
            {"combined_graph_layer": {"position_scales": [20.0]}},
            "parameters.combined_graph_layer.position_scales",
        ),
    ],
)
def test_positions_need_events_that_have_them(parameters, key):
    for name in ("clic", "clic_hits"):
        assert config(name, **parameters).dataset.schema_ == name
    with pytest.raises(ValidationError, match=f"{key} needs positions .* delphes events have no columns"):
        config("delphes", **parameters)


def test_half_precision_needs_normalised_features():
    parts = {**MINIMAL, "parameters": {"combined_graph_layer": {"layernorm": False}}}
    Config.model_validate({**parts, "setup": {"dtype": "mixed_bfloat16"}})
    with pytest.raises(
        ValidationError, match=r"mixed_float16 needs parameters\.combined_graph_layer\.layernorm"
    ):
        Config.model_validate({**parts, "setup": {"dtype": "mixed_float16"}})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"b": 2.0}, "weights of b, which the group does not have; it has a"),
        ({"a": 0.0}, "greater than 0"),
    ],
)
def test_weights_are_positive_and_of_datasets_of_the_group(weights, message):
    group = {"batch_per_gpu": 4, "datasets": ["a"], "weights": weights}
    with pytest.raises(ValidationError, match=message):
        Config.model_validate({**MINIMAL, "train_test_datasets": {"all": group}})
