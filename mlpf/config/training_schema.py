"""Sections of a training: setup, optimizers, schedules, callbacks."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from mlpf.config.model_schema import Section


class SetupConfig(Section):
    """One training run."""

    num_epochs: PositiveInt = Field(150, description="epochs")
    lr: PositiveFloat = Field(1e-3, description="peak learning rate")
    lr_schedule: Literal["none", "cosinedecay", "exponentialdecay", "onecycle"] = Field(
        "cosinedecay", description="learning rate against the update; none = constant"
    )
    lr_warmup_steps: NonNegativeInt = Field(
        0,
        description="updates of a linear warm-up of the learning rate, before the schedule; not with "
        "onecycle, which has its own",
    )
    optimizer: Literal["adam", "adamw", "sgd", "lamb", "lion"] = Field("adam", description="optimizer")
    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="precision: Keras dtype policy; mixed_float16 trains with dynamic loss scaling",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        1, description="seed of weights, shuffling and dropout"
    )
    clipnorm: PositiveFloat | None = Field(None, description="clip the global gradient norm to this")
    deterministic: bool = Field(
        False,
        description="deterministic TensorFlow operations: the same bits in every run; much slower on a GPU",
    )
    allow_tf32: bool = Field(
        True,
        description="precision of Nvidia GPUs: round factors of float32 products to 10 bits "
        "(TensorFloat-32), the default of TensorFlow; false is exact and slower",
    )
    gradient_accumulation_steps: PositiveInt = Field(
        1, description="batches whose mean gradient makes one update; warm-up and schedules count updates"
    )
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="decay per update of a moving average of the weights, which validation and checkpoints "
        "use; null = none",
    )
    trainable: Literal["all", "classification", "regression", "heads"] = Field(
        "all", description="which weights are trained: all, the stack and heads of one task, or all heads"
    )
    jit_compile: bool = Field(
        False, description="compile the steps with XLA, once per bucket shape; one device only"
    )

    @model_validator(mode="after")
    def _one_warm_up(self) -> "SetupConfig":
        if self.lr_schedule == "onecycle" and self.lr_warmup_steps:
            raise ValueError(
                f"setup.lr_warmup_steps: {self.lr_warmup_steps} with setup.lr_schedule: onecycle, which "
                "begins with its own warm-up; set it to 0 and use optimizer.onecycle.warmup_ratio"
            )
        return self


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


class LambConfig(Section):
    """LAMB: Adam with the step of each weight tensor scaled to the norm of the tensor."""

    beta_1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="decay of the first moment")
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="decay of the second moment")
    weight_decay: NonNegativeFloat = Field(0.01, description="decoupled weight decay")


class LionConfig(Section):
    """Lion: every weight changes by the learning rate; the sign of a momentum gives the direction."""

    beta_1: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.9, description="share of the momentum in a step"
    )
    beta_2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.99, description="decay of the momentum")
    weight_decay: NonNegativeFloat = Field(0.1, description="decoupled weight decay")


class ExponentialDecayConfig(Section):
    """Exponential learning-rate decay."""

    decay_steps: PositiveInt | Literal["epoch"] = Field(
        2000, description="updates per decay; epoch = those of one epoch"
    )
    decay_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.99, description="factor per decay_steps")
    staircase: bool = Field(True, description="decay at whole intervals only")


class OneCycleConfig(Section):
    """One cosine up, one down; the momentum goes the other way."""

    warmup_ratio: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.3, description="share of all updates in which the learning rate rises"
    )
    div_factor: Annotated[float, Field(ge=1.0)] = Field(
        25.0, description="first learning rate is setup.lr / this"
    )
    final_div: Annotated[float, Field(ge=1.0)] = Field(
        1e5, description="last learning rate is setup.lr / this"
    )
    momentum_high: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.95, description="momentum (sgd) or beta_1 (others) at the first and last update; replaces theirs"
    )
    momentum_low: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.85, description="momentum or beta_1 at the peak of the learning rate"
    )


class OptimizerConfig(Section):
    """Settings of each optimizer and schedule; ``setup`` chooses among them."""

    adam: AdamConfig = Field(AdamConfig(), description="used by setup.optimizer adam")
    adamw: AdamWConfig = Field(AdamWConfig(), description="used by setup.optimizer adamw")
    sgd: SGDConfig = Field(SGDConfig(), description="used by setup.optimizer sgd")
    lamb: LambConfig = Field(LambConfig(), description="used by setup.optimizer lamb")
    lion: LionConfig = Field(LionConfig(), description="used by setup.optimizer lion")
    exponentialdecay: ExponentialDecayConfig = Field(
        ExponentialDecayConfig(), description="used by setup.lr_schedule exponentialdecay"
    )
    onecycle: OneCycleConfig = Field(OneCycleConfig(), description="used by setup.lr_schedule onecycle")


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


class EarlyStoppingConfig(Section):
    """End a training that does not improve any more. Decided after each epoch from the history alone."""

    monitor: str | None = Field(
        None, description="recorded metric, smaller is better; null = that of callbacks.checkpoint.monitor"
    )
    patience: PositiveInt = Field(
        description="end after this many epochs without gain; epochs without the metric do not count"
    )
    min_delta: NonNegativeFloat = Field(0.0, description="a gain is more than this below the best so far")
    start_epoch: PositiveInt = Field(1, description="first epoch that counts, from 1")


class PhysicsConfig(Section):
    """Jets and missing momentum of validation events, while the training runs."""

    every: NonNegativeInt = Field(
        1, description="run it every so many epochs and after the last one; 0 = never"
    )
    num_events: PositiveInt = Field(500, description="first validation events, this many at most")


class CometConfig(Section):
    """Log to Comet. The API key comes from the environment variable COMET_API_KEY."""

    project: Annotated[str, Field(min_length=1)] = Field(description="Comet project")
    workspace: str | None = Field(None, description="Comet workspace; null = the default of the account")
    offline: bool = Field(False, description="write archives to upload later instead of sending")
    name: str | None = Field(None, description="name of the experiment; null = name of the run directory")


class CallbacksConfig(Section):
    """What happens after each epoch."""

    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="checkpoints")
    early_stopping: EarlyStoppingConfig | None = Field(
        None, description="end a training that does not improve any more; null = train all epochs"
    )
    tensorboard: bool = Field(True, description="write TensorBoard logs")
    physics: PhysicsConfig = Field(
        PhysicsConfig(), description="jet and missing momentum response after an epoch"
    )
    comet: CometConfig | None = Field(None, description="also log to Comet; null = no")
