"""Sections of a training run: set-up, optimizers, schedules, what happens after each epoch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mlpf.config.model_schema import Section


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


class PhysicsConfig(Section):
    """Jets and missing momentum of validation events, while the training runs."""

    every: NonNegativeInt = Field(
        1, description="epochs from one such validation to the next, the last epoch always has one; 0 = never"
    )
    num_events: PositiveInt = Field(500, description="first validation events, this many at most")


class CometConfig(Section):
    """Where Comet keeps a run. The API key comes from the environment (COMET_API_KEY)."""

    project: Annotated[str, Field(min_length=1)] = Field(description="Comet project")
    workspace: str | None = Field(None, description="Comet workspace; null = the default of the account")
    offline: bool = Field(False, description="write archives to upload later instead of sending")
    name: str | None = Field(None, description="name of the experiment; null = name of the run directory")


class CallbacksConfig(Section):
    """What happens after each epoch."""

    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="checkpoints")
    tensorboard: bool = Field(True, description="write TensorBoard logs")
    physics: PhysicsConfig = Field(
        PhysicsConfig(), description="jet and missing momentum response after an epoch"
    )
    comet: CometConfig | None = Field(None, description="also log to Comet; null = no")
