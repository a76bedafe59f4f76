"""Typed configuration: every section and key of a YAML file, with type, default, bounds and meaning."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from mlpf.config.data_schema import (
    BatchingConfig,
    DatasetConfig,
    DatasetGroupConfig,
    DatasetSourceConfig,
    EvaluationDatasetConfig,
)
from mlpf.config.loss_schema import LossConfig
from mlpf.config.model_schema import AnyModelConfig, GNNConfig, Section
from mlpf.config.search.schema import HypertuneConfig
from mlpf.config.training_schema import CallbacksConfig, OptimizerConfig, SetupConfig


class Config(Section):
    """A whole configuration file."""

    dataset: DatasetConfig = Field(DatasetConfig(), description="what an event looks like")
    loss: LossConfig = Field(LossConfig(), description="terms of the loss")
    setup: SetupConfig = Field(SetupConfig(), description="one training run")
    batching: BatchingConfig = Field(BatchingConfig(), description="how events become batches")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="optimizer settings")
    parameters: AnyModelConfig = Field(GNNConfig(), description="the model")
    callbacks: CallbacksConfig = Field(CallbacksConfig(), description="after each epoch")
    train_test_datasets: Annotated[dict[str, DatasetGroupConfig], Field(min_length=1)] = Field(
        description="groups of datasets to train on"
    )
    validation_dataset: str = Field(description="dataset whose valid split ranks checkpoints")
    validation_batch_size: PositiveInt = Field(100, description="events per validation batch")
    validation_num_events: Annotated[int, Field(ge=-1)] = Field(-1, description="validation events; -1 = all")
    evaluation_datasets: dict[str, EvaluationDatasetConfig] = Field(description="datasets to evaluate on")
    evaluation_jet_algo: Literal["ee_genkt", "antikt"] = Field(
        "ee_genkt", description="jets of the evaluation"
    )
    evaluation_none_threshold: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="an element has no particle if the sigmoid of its logit for none exceeds this; otherwise "
        "the largest other logit decides. null = the largest of all logits decides, as published",
    )
    datasets: Annotated[dict[str, DatasetSourceConfig], Field(min_length=1)] = Field(
        description="where each dataset is"
    )
    hypertune: HypertuneConfig | None = Field(None, description="a search for hyperparameters; null = none")

    @model_validator(mode="after")
    def _named_datasets_exist(self) -> "Config":
        wanted = {f"train_test_datasets.{g}": s.datasets for g, s in self.train_test_datasets.items()}
        wanted["validation_dataset"] = [self.validation_dataset]
        wanted["evaluation_datasets"] = list(self.evaluation_datasets)
        missing = [f"{key}: {n}" for key, names in wanted.items() for n in names if n not in self.datasets]
        if missing:
            raise ValueError(f"not listed under datasets: {'; '.join(missing)}; add them there")
        return self

    @model_validator(mode="after")
    def _positions_can_be_computed(self) -> "Config":
        """Refuse options that need positions at the calorimeter, for events without their columns."""
        layer = getattr(self.parameters, "combined_graph_layer", None)
        wants = {
            "parameters.input_encoding: clic_helix": self.parameters.input_encoding == "clic_helix",
            "parameters.combined_graph_layer.position_scales": bool(layer and layer.position_scales),
        }
        asked = [key for key, wanted in wants.items() if wanted]
        if asked and self.dataset.helix_columns is None:
            raise ValueError(
                f"{' and '.join(asked)} needs positions at the calorimeter, for which {self.dataset.schema_} "
                "events have no columns; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _features_fit_into_half(self) -> "Config":
        """Refuse float16 without layernorm: features could exceed its maximum, 65504."""
        layer = getattr(self.parameters, "combined_graph_layer", None)
        if self.setup.dtype == "mixed_float16" and layer is not None and not layer.layernorm:
            raise ValueError(
                "setup.dtype: mixed_float16 needs parameters.combined_graph_layer.layernorm: true, because "
                "without it features can exceed 65504; use mixed_bfloat16 or the layernorm"
            )
        return self

    def with_overrides(self, overrides: dict[str, Any]) -> "Config":
        """Return a new, validated configuration with dotted keys replaced.

        Raises:
            pydantic.ValidationError: an override is not valid.
        """
        data = self.model_dump(by_alias=True)
        for dotted, value in overrides.items():
            node = data
            *parents, last = dotted.split(".")
            for key in parents:
                node = node[key]
            node[last] = value
        return Config.model_validate(data)

    def with_data_dir(self, data_dir: str) -> "Config":
        """Return a copy with ``data_dir`` for every dataset."""
        sources = {n: s.model_copy(update={"data_dir": data_dir}) for n, s in self.datasets.items()}
        return self.model_copy(update={"datasets": sources})
