"""Expression error: does the swap make the target's face (FaceShifter, arXiv:1912.13457, section 4.1)?"""

from typing import Annotated, ClassVar

from pydantic import Field

from fsf_benchmarks.estimator_error import EstimatorError
from fsframework.core.components import MetricInfo
from fsframework.core.part import Part, use


class ExpressionError(EstimatorError):
    """How far the swap's expression is from the target's, in the estimator's own units; lower is better.

    L2 distance of the coefficients of a morphable head. The paper has another model, so its figures do not compare.
    """

    name = "expression-error"
    quantity = "expression"
    noises = ("noise", "noise_crop")
    mirrored = (1.0,)
    metrics: ClassVar = {
        "expression": MetricInfo("", "lower", "L2 distance of the expression coefficients of swap and target."),
        "noise": MetricInfo("", "lower", "The estimator's own: distance of a target and its mirror image."),
        "noise_crop": MetricInfo("", "lower", "The same of a target and a crop of 96 % of its side."),
    }

    class Options(EstimatorError.Options):
        estimator: Annotated[Part, use("estimators")] = Field(description="Measures the expression.")
