"""Expression error of swap and target (FaceShifter, arXiv:1912.13457, section 4.1)."""

from typing import Annotated, ClassVar

from pydantic import Field

from fsf_benchmarks.estimator_error import EstimatorError
from fsframework.core.components import MetricInfo
from fsframework.core.part import Part, use


class ExpressionError(EstimatorError):
    """Measure the L2 distance of the expression coefficients of swap and target; lower is better.

    Coefficients are those of a 3D morphable model. The paper uses another model, so its figures are not comparable.
    """

    name = "expression-error"
    quantity = "expression"
    noises = ("noise", "noise_crop")
    mirrored = (1.0,)
    metrics: ClassVar = {
        "expression": MetricInfo("", "lower", "L2 distance of the expression coefficients of swap and target."),
        "noise": MetricInfo("", "lower", "Noise of the estimator: distance of a target and its mirror image."),
        "noise_crop": MetricInfo("", "lower", "The same of a target and a crop of 96 % of its side."),
    }

    class Options(EstimatorError.Options):
        estimator: Annotated[Part, use("estimators")] = Field(description="Estimator of the expression.")
