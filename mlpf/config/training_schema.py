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
    deterministic: bool = Field(
        False,
        description="TensorFlow operations that give the same bits in every run; slower, on a GPU far slower",
    )
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
    keep_last: PositiveInt = Field(
        2, description="newest checkpoints of whole epochs kept beside the best one"
    )
    every_minutes: PositiveFloat | None = Field(
        10.0, description="save in the middle of an epoch after this time; null = at its end only"
    )
    every_steps: PositiveInt | None = Field(
        None, description="save in the middle of an epoch after so many steps; null = by time only"
    )


class CallbacksConfig(Section):
    """What happens after each epoch."""

    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="checkpoints")
    tensorboard: bool = Field(True, description="write TensorBoard logs")
