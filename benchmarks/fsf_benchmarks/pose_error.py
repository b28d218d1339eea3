"""Head pose error of swap and target (FaceShifter, arXiv:1912.13457, section 4.1)."""

from typing import Annotated, ClassVar

from pydantic import Field

from fsf_benchmarks.estimator_error import EstimatorError
from fsframework.core.components import MetricInfo
from fsframework.core.part import Part, use

QUANTITY = "pose_deg"


class PoseError(EstimatorError):
    """Measure the L2 distance of the head poses (yaw, pitch, roll) of swap and target, in degrees; lower is better.

    Estimators differ in scale and noise, so figures of different estimators and papers are not comparable. `noise_deg`
    is the estimator's difference between a target and its mirror image, mirrored back. `noise_crop_deg` is that between
    a target and a slightly smaller crop. Errors below the noise do not distinguish methods.
    """

    name = "pose-error"
    quantity = QUANTITY
    noises = ("noise_deg", "noise_crop_deg")
    mirrored = (-1.0, 1.0, -1.0)
    metrics: ClassVar = {
        QUANTITY: MetricInfo("deg", "lower", "L2 distance of the head poses (yaw, pitch, roll) of swap and target."),
        "noise_deg": MetricInfo(
            "deg", "lower", "Noise of the estimator: distance of the poses of a target and its mirror image."
        ),
        "noise_crop_deg": MetricInfo("deg", "lower", "The same of a target and a crop of 96 % of its side."),
    }

    class Options(EstimatorError.Options):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pnp"}, validate_default=True, description="Estimator of the pose in degrees."
        )
