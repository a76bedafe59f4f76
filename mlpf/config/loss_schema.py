"""Sections of the loss: coefficient and form of each term."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from mlpf.config.model_schema import Section

# Regression losses of Keras that compare numbers one by one -> their arguments, all positive numbers.
# CosineSimilarity is left out: for single numbers it only depends on the sign. A test compares with Keras.
REGRESSION_LOSSES: dict[str, tuple[str, ...]] = {
    "Huber": ("delta",),
    "MeanSquaredError": (),
    "MeanAbsoluteError": (),
    "LogCosh": (),
    "MeanSquaredLogarithmicError": (),
    "MeanAbsolutePercentageError": (),
}
# These need positive values and do not work for logarithms.
_NOT_OF_LOGARITHMS = ("MeanSquaredLogarithmicError", "MeanAbsolutePercentageError")

Coefficient = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
WeightByPt = Literal[False, True, "sqrt"]
TargetForm = Literal["value", "log_ratio"]


class FocalLossConfig(Section):
    """Sigmoid focal loss, one against all classes (Lin et al. 2017)."""

    type: Literal["SigmoidFocalCrossEntropy"] = Field("SigmoidFocalCrossEntropy", description="loss")
    gamma: NonNegativeFloat = Field(2.0, description="focusing exponent")
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.25, description="weight of the true class")


class RegressionLossConfig(Section):
    """A Keras regression loss by class name, with its arguments."""

    type: Literal[
        "Huber",
        "MeanSquaredError",
        "MeanAbsoluteError",
        "LogCosh",
        "MeanSquaredLogarithmicError",
        "MeanAbsolutePercentageError",
    ] = Field("Huber", description="Keras loss class")
    delta: PositiveFloat | None = Field(None, description="Huber only: where it turns linear (1.0)")
    kwargs: dict[str, PositiveFloat] = Field({}, description="arguments of the Keras class by name")

    @property
    def arguments(self) -> dict[str, float]:
        """Arguments of the Keras class, including ``delta``."""
        return self.kwargs | ({} if self.delta is None else {"delta": self.delta})

    @model_validator(mode="after")
    def _arguments_fit_the_loss(self) -> "RegressionLossConfig":
        allowed = REGRESSION_LOSSES[self.type]
        if self.delta is not None and "delta" not in allowed:
            raise ValueError(f"delta belongs to Huber, not to {self.type}; remove it")
        if self.delta is not None and "delta" in self.kwargs:
            raise ValueError("delta is given twice, beside kwargs and in it; remove one")
        unknown = [name for name in self.kwargs if name not in allowed]
        if unknown:
            known = f"its arguments are {', '.join(allowed)}" if allowed else "it has no arguments"
            raise ValueError(f"kwargs: {self.type} has no argument {', '.join(unknown)}; {known}")
        return self


class GenJetLossConfig(Section):
    """Difference of the pt of true jets, in GeV."""

    coef: Coefficient = Field(0.0, description="weight of the term; 0 = not computed")


class SlicedWassersteinConfig(Section):
    """Distance between the sets of true and predicted particles, projected on random directions."""

    coef: Coefficient = Field(0.0, description="weight of the term; 0 = not computed")
    num_projections: PositiveInt = Field(200, description="directions, drawn anew in each training step")


class Histogram2DConfig(Section):
    """Difference of the momentum in cells of eta and phi, in GeV."""

    coef: Coefficient = Field(0.0, description="weight of the term; 0 = not computed")
    num_eta_bins: Annotated[int, Field(ge=2)] = Field(20, description="cells in eta")
    num_phi_bins: Annotated[int, Field(ge=2)] = Field(20, description="cells in phi, around the whole circle")
    max_eta: PositiveFloat = Field(6.0, description="cells cover ±max_eta; what lies beyond is in the last")


class MissingMomentumConfig(RegressionLossConfig):
    """A Keras regression loss of the missing transverse momentum, in GeV."""

    coef: Coefficient = Field(0.0, description="weight of the term; 0 = not computed")


class EventLossConfig(Section):
    """Terms that compare whole events; all off by default."""

    sliced_wasserstein: SlicedWassersteinConfig = Field(
        SlicedWassersteinConfig(), description="sliced Wasserstein distance of the particles"
    )
    gen_jet_mse: GenJetLossConfig = Field(
        GenJetLossConfig(), description="root mean squared difference of the pt of true jets"
    )
    gen_jet_logcosh: GenJetLossConfig = Field(
        GenJetLossConfig(), description="log-cosh of the difference of the pt of true jets"
    )
    hist_2d: Histogram2DConfig = Field(
        Histogram2DConfig(),
        description="root mean squared difference of the momentum in cells of eta and phi",
    )
    met: MissingMomentumConfig = Field(
        MissingMomentumConfig(), description="missing transverse momentum: any Keras regression loss"
    )

    @property
    def coefficients(self) -> dict[str, float]:
        """Term -> coefficient, in the order of the sections."""
        return {name: getattr(self, name).coef for name in type(self).model_fields}


class LossConfig(Section):
    """Terms of the loss: coefficient and form of each; a term of coefficient 0 is not computed."""

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
    pt_target: TargetForm = Field(
        "value",
        description="what the pt loss compares: pt in GeV, or its logarithm relative to the element's",
    )
    energy_target: TargetForm = Field("value", description="the same for the energy")
    cls_weight_by_pt: WeightByPt = Field(
        False, description="weight the class and charge terms by the element's pt, or by its root (sqrt)"
    )
    reg_weight_by_pt: WeightByPt = Field(
        False, description="weight the regression terms by the element's pt, or by its root (sqrt)"
    )
    event_loss: EventLossConfig = Field(EventLossConfig(), description="terms that compare whole events")

    @property
    def coefficients(self) -> dict[str, float]:
        """Term -> coefficient: class, charge, regression, events."""
        return {
            "cls": self.classification_loss_coef,
            "charge": self.charge_loss_coef,
            "pt": self.pt_loss_coef,
            "eta": self.eta_loss_coef,
            "sin_phi": self.sin_phi_loss_coef,
            "cos_phi": self.cos_phi_loss_coef,
            "energy": self.energy_loss_coef,
            **self.event_loss.coefficients,
        }

    @property
    def term_names(self) -> tuple[str, ...]:
        """Terms that are computed: those with a coefficient above 0."""
        return tuple(name for name, coefficient in self.coefficients.items() if coefficient > 0)

    @model_validator(mode="after")
    def _losses_fit_their_targets(self) -> "LossConfig":
        for name in ("pt", "energy"):
            loss = getattr(self, f"{name}_loss").type
            if getattr(self, f"{name}_target") == "log_ratio" and loss in _NOT_OF_LOGARITHMS:
                raise ValueError(
                    f"{name}_target: log_ratio compares logarithms, of which {name}_loss.type: {loss} cannot "
                    "be taken; use Huber, LogCosh, MeanSquaredError or MeanAbsoluteError"
                )
        return self

    @model_validator(mode="after")
    def _something_is_trained(self) -> "LossConfig":
        if not self.term_names:
            raise ValueError("every coefficient is 0, so there is nothing to train; set one above 0")
        return self
