"""Sections of the data: columns of an event, places of datasets, batching."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, PositiveInt, model_validator

from mlpf.config.detector import CLIC, Detector
from mlpf.config.model_schema import Section
from mlpf.physics.features import NUM_CLIC_FEATURES, TARGETS
from mlpf.physics.particles import NUM_CLASSES
from mlpf.physics.schemas import SCHEMAS, EventSchema, SchemaName

# The splits of a dataset, in their order.
SplitName = Literal["train", "valid", "test"]
TRAIN: Final = "train"
VALID: Final = "valid"
TEST: Final = "test"
SPLITS: tuple[SplitName, ...] = (TRAIN, VALID, TEST)

# Columns from which the position at the calorimeter face is computed: of tracks, and of other elements.
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
    num_output_features: Literal[len(TARGETS)] = Field(  # type: ignore[valid-type]  # pydantic reads the value
        len(TARGETS), description="target columns"
    )
    num_input_classes: int = Field(3, description="element types, padding included; follows from the schema")
    num_output_classes: Literal[NUM_CLASSES] = Field(  # type: ignore[valid-type]  # pydantic reads the value
        NUM_CLASSES, description="particle classes C, none included"
    )
    detector: Detector | None = Field(
        CLIC,
        description="what the events were measured with: name of a shipped detector, a file FILE.yaml, or "
        "its keys; null for events without positions, such as those of Delphes",
    )

    @property
    def event_schema(self) -> EventSchema:
        """The kinds of element and their columns."""
        return SCHEMAS[self.schema_]

    @property
    def helix_columns(self) -> dict[str, int] | None:
        """Positions of ``POSITION_COLUMNS`` in X; None if the schema lacks one of them."""
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
        return {**derived, **({} if schema.has_positions else {"detector": None}), **data}

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
        if schema.has_positions != (self.detector is not None):
            need = "a detector" if schema.has_positions else "none"
            raise ValueError(f"detector: {schema.name} events need {need}; leave the key out")
        return self


class BatchingConfig(Section):
    """How events become batches."""

    bucket_by_sequence_length: bool = Field(
        True, description="batch events of similar length; no = pad all to the longest event of the split"
    )
    bucket_growth: Annotated[float, Field(gt=1.0)] = Field(
        1.1,
        description="ratio of neighbouring bucket lengths, multiples of 16 (transformer: of bucket_size)",
    )
    batch_multiplier: PositiveInt = Field(1, description="multiplies every batch size")
    memory_limit_gb: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = Field(
        4.0,
        description="decoded events of a split stay in memory up to this many GiB in each process, larger "
        "splits are read from disk in every epoch; 0 = always from disk",
    )

    @property
    def memory_limit_bytes(self) -> int:
        """Bytes of decoded events that may stay in memory."""
        return int(self.memory_limit_gb * 1024**3)


class DatasetGroupConfig(Section):
    """Datasets that share a batch size."""

    batch_per_gpu: PositiveInt = Field(
        description="events per batch and device (GPU); fewer need less memory"
    )
    datasets: Annotated[list[str], Field(min_length=1)] = Field(description="names out of `datasets`")
    weights: dict[str, Annotated[float, Field(gt=0.0, le=1000.0)]] = Field(
        {},
        description="dataset -> passes over its training events per epoch, default 1. 2 uses every event "
        "twice, 0.5 uses half of the events in one epoch and the other half in the next",
    )

    @model_validator(mode="after")
    def _weights_are_of_datasets(self) -> "DatasetGroupConfig":
        others = [name for name in self.weights if name not in self.datasets]
        if others:
            raise ValueError(
                f"weights of {', '.join(others)}, which the group does not have; "
                f"it has {', '.join(self.datasets)}"
            )
        return self


class EvaluationDatasetConfig(Section):
    """One dataset to evaluate on."""

    batch_size: PositiveInt = Field(50, description="events per batch")
    num_events: Annotated[int, Field(ge=-1)] = Field(-1, description="first events only; -1 = all")
    split: SplitName = Field(TEST, description="split to evaluate")


class DatasetSourceConfig(Section):
    """Where a prepared dataset is."""

    version: str = Field(description="dataset version, e.g. 1.0.0")
    data_dir: str = Field("tensorflow_datasets", description="directory that holds <name>/<version>")
    valid_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of train used as valid split if the dataset has none; 0 = none"
    )
    valid_seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="seed that chooses that share")
