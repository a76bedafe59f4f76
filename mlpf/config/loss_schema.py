"""Sections of the loss: coefficient and form of each term."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from mlpf.config.model_schema import Section


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
