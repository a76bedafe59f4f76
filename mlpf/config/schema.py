"""Typed configuration: every section and key of a YAML file, with type, default, bounds and meaning."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mlpf.config.model_schema import AnyModelConfig, GNNConfig, Section
from mlpf.physics.features import NUM_CLIC_FEATURES, TARGETS
from mlpf.physics.particles import NUM_CLASSES
from mlpf.physics.schemas import SCHEMAS, EventSchema, SchemaName

# From what the position of an element at the calorimeter is computed: columns of tracks, of the others.
POSITION_COLUMNS = (
    ("sin_phi", "cos_phi", "tanLambda", "D0", "omega", "Z0"),
    ("position.x", "position.y", "position.z"),
)


class DatasetConfig(Section):
    """What an event looks like."""

    schema_: SchemaName = Field("clic", alias="schema", description="what events are made of")
    num_input_features: int = Field(
        NUM_CLIC_FEATURES, description="feature columns F of X; follows from the schema"
    )
    num_output_features: Literal[len(TARGETS)] = Field(  # type: ignore[valid-type]
        len(TARGETS), description="target columns"
    )
    num_input_classes: int = Field(3, description="element types, padding included; follows from the schema")
    num_output_classes: Literal[NUM_CLASSES] = Field(  # type: ignore[valid-type]
        NUM_CLASSES, description="particle classes C, none included"
    )

    @property
    def event_schema(self) -> EventSchema:
        """The kinds of element and their columns."""
        return SCHEMAS[self.schema_]

    @property
    def helix_columns(self) -> dict[str, int] | None:
        """Places in X of the ``POSITION_COLUMNS``; None where the events do not have them all."""
        kinds = [kind.features for kind in self.event_schema.kinds]
        pairs = [(kind, name) for kind, names in zip(kinds, POSITION_COLUMNS, strict=True) for name in names]
        if any(name not in kind.names for kind, name in pairs):
            return None
        return {name: kind.index(name) for kind, name in pairs}

    @model_validator(mode="before")
    @classmethod
    def _fill_from_schema(cls, data: Any) -> Any:
        schema = SCHEMAS.get(data.get("schema", "clic")) if isinstance(data, dict) else None
        if schema is None:
            return data
        derived = {"num_input_features": schema.num_features, "num_input_classes": schema.num_element_types}
        return {**derived, **data}

    @model_validator(mode="after")
    def _numbers_follow_from_schema(self) -> "DatasetConfig":
        schema = self.event_schema
        for key, wanted in (
            ("num_input_features", schema.num_features),
            ("num_input_classes", schema.num_element_types),
        ):
            if getattr(self, key) != wanted:
                raise ValueError(
                    f"{key}={getattr(self, key)} does not fit schema {schema.name}, which has {wanted}; "
                    "leave it out"
                )
        return self


class FocalLossConfig(Section):
    """Sigmoid focal loss, one against all classes (Lin et al. 2017)."""

    type: Literal["SigmoidFocalCrossEntropy"] = Field("SigmoidFocalCrossEntropy", description="loss")
    gamma: NonNegativeFloat = Field(2.0, description="focusing exponent")
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.25, description="weight of the true class")


class RegressionLossConfig(Section):
    """A Keras regression loss by class name."""

    type: Literal[
        "Huber", "MeanSquaredError", "MeanAbsoluteError", "LogCosh", "MeanSquaredLogarithmicError"
    ] = Field("Huber", description="Keras loss class")
    delta: PositiveFloat | None = Field(None, description="Huber only: where it turns linear (1.0)")

    @model_validator(mode="after")
    def _delta_needs_huber(self) -> "RegressionLossConfig":
        if self.delta is not None and self.type != "Huber":
            raise ValueError(f"delta belongs to Huber, not to {self.type}; remove it")
        return self


Coefficient = Annotated[float, Field(ge=0.0)]


class LossConfig(Section):
    """Terms of the loss: coefficient and form of each."""

    classification_loss_coef: Coefficient = Field(100.0, description="weight of the class term")
    charge_loss_coef: Coefficient = Field(1.0, description="weight of the charge term")
    pt_loss_coef: Coefficient = Field(10.0, description="weight of the pt term")
    eta_loss_coef: Coefficient = Field(10.0, description="weight of the eta term")
    sin_phi_loss_coef: Coefficient = Field(10.0, description="weight of the sin phi term")
    cos_phi_loss_coef: Coefficient = Field(10.0, description="weight of the cos phi term")
    energy_loss_coef: Coefficient = Field(10.0, description="weight of the energy term")
    cls_loss: FocalLossConfig = Field(FocalLossConfig(), description="class loss")
    pt_loss: RegressionLossConfig = Field(RegressionLossConfig(), description="pt loss")
    eta_loss: RegressionLossConfig = Field(RegressionLossConfig(), description="eta loss")
    sin_phi_loss: RegressionLossConfig = Field(RegressionLossConfig(), description="sin phi loss")
    cos_phi_loss: RegressionLossConfig = Field(RegressionLossConfig(), description="cos phi loss")
    energy_loss: RegressionLossConfig = Field(RegressionLossConfig(), description="energy loss")
    cls_weight_by_pt: bool = Field(False, description="weight the class and charge terms by the element's pt")
    reg_weight_by_pt: bool = Field(False, description="weight the regression terms by the element's pt")


class SetupConfig(Section):
    """One training run."""

    num_epochs: PositiveInt = Field(150, description="epochs")
    lr: PositiveFloat = Field(1e-3, description="peak learning rate")
    lr_schedule: Literal["none", "cosinedecay", "exponentialdecay"] = Field(
        "cosinedecay", description="learning rate against step"
    )
    lr_warmup_steps: NonNegativeInt = Field(0, description="linear warm-up steps before the schedule")
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimizer")
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="Keras dtype policy; mixed_float16 trains with dynamic loss scaling"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        1, description="seed of weights, shuffling and dropout"
    )
    clipnorm: PositiveFloat | None = Field(None, description="clip the global gradient norm to this")
    jit_compile: bool = Field(
        False, description="compile the steps with XLA, once per bucket shape; one device only"
    )


class BatchingConfig(Section):
    """How events become batches."""

    bucket_by_sequence_length: bool = Field(
        True, description="batch events of similar length; no = pad all to the longest event of the split"
    )
    bucket_growth: Annotated[float, Field(gt=1.0)] = Field(
        1.3, description="ratio of neighbouring bucket lengths (multiples of bin_size; below one bin, of 32)"
    )
    batch_multiplier: PositiveInt = Field(1, description="multiplies every batch size")


class AdamConfig(Section):
    """Adam."""

    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="decay of the first moment")
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="decay of the second moment")
    amsgrad: bool = Field(False, description="use the AMSGrad variant")


class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay."""

    weight_decay: NonNegativeFloat = Field(0.01, description="decoupled weight decay")


class SGDConfig(Section):
    """Stochastic gradient descent."""

    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="momentum")
    nesterov: bool = Field(False, description="Nesterov momentum")


class ExponentialDecayConfig(Section):
    """Exponential learning-rate decay."""

    decay_steps: PositiveInt = Field(2000, description="steps per decay")
    decay_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.99, description="factor per decay_steps")
    staircase: bool = Field(True, description="decay at whole intervals only")


class OptimizerConfig(Section):
    """Settings of each optimizer and schedule; ``setup`` chooses among them."""

    adam: AdamConfig = Field(AdamConfig(), description="used by setup.optimizer adam")
    adamw: AdamWConfig = Field(AdamWConfig(), description="used by setup.optimizer adamw")
    sgd: SGDConfig = Field(SGDConfig(), description="used by setup.optimizer sgd")
    exponentialdecay: ExponentialDecayConfig = Field(
        ExponentialDecayConfig(), description="used by setup.lr_schedule exponentialdecay"
    )


class CheckpointConfig(Section):
    """Which checkpoints are kept."""

    monitor: str = Field("val_loss", description="recorded metric that ranks checkpoints, smaller is better")
    keep_last: PositiveInt = Field(2, description="newest checkpoints kept beside the best one")


class CallbacksConfig(Section):
    """What happens after each epoch."""

    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="checkpoints")
    tensorboard: bool = Field(True, description="write TensorBoard logs")


class DatasetGroupConfig(Section):
    """Datasets that share a batch size."""

    batch_per_gpu: PositiveInt = Field(description="events per batch and device")
    datasets: Annotated[list[str], Field(min_length=1)] = Field(description="names out of `datasets`")


class EvaluationDatasetConfig(Section):
    """One dataset to evaluate on."""

    batch_size: PositiveInt = Field(50, description="events per batch")
    num_events: Annotated[int, Field(ge=-1)] = Field(-1, description="first events only; -1 = all")
    split: Literal["train", "valid", "test"] = Field("test", description="split to evaluate")


class DatasetSourceConfig(Section):
    """Where a prepared dataset is."""

    version: str = Field(description="dataset version, e.g. 1.0.0")
    data_dir: str = Field("tensorflow_datasets", description="directory that holds <name>/<version>")
    valid_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of train that is the valid split where the dataset has none; 0 = none"
    )
    valid_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="seed that chooses that share")


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
        description="an element holds no particle where the sigmoid of its logit for none exceeds this, else "
        "the largest other class; null = the largest of all, as published",
    )
    datasets: Annotated[dict[str, DatasetSourceConfig], Field(min_length=1)] = Field(
        description="where each dataset is"
    )

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
        """Refuse what needs positions at the calorimeter, for events that have none."""
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
        """Refuse features of unknown size in a format that ends at 65504."""
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
        """Return a copy in which every dataset is looked up in ``data_dir``."""
        sources = {n: s.model_copy(update={"data_dir": data_dir}) for n, s in self.datasets.items()}
        return self.model_copy(update={"datasets": sources})
