"""Pose error: does the swap hold its head as the target does (FaceShifter, arXiv:1912.13457, section 4.1)?"""

from typing import Annotated, ClassVar

from pydantic import Field

from fsf_benchmarks.estimator_error import EstimatorError
from fsframework.core.components import MetricInfo
from fsframework.core.part import Part, use

QUANTITY = "pose_deg"


class PoseError(EstimatorError):
    """How far the swap's head pose is from the target's, in degrees; lower is better.

    L2 distance of (yaw, pitch, roll). Estimators differ in scale and noise, so figures of different estimators, and
    those of papers, do not compare. `noise_deg` says how far the estimator is from itself on a target and its mirror
    image, turned back, and `noise_crop_deg` on a target and a slightly smaller crop of it: a method cannot be told
    from a perfect one far below them.
    """

    name = "pose-error"
    quantity = QUANTITY
    noises = ("noise_deg", "noise_crop_deg")
    mirrored = (-1.0, 1.0, -1.0)
    metrics: ClassVar = {
        QUANTITY: MetricInfo("deg", "lower", "L2 distance of the head poses (yaw, pitch, roll) of swap and target."),
        "noise_deg": MetricInfo(
            "deg", "lower", "The estimator's own: distance of the poses of a target and its mirror."
        ),
        "noise_crop_deg": MetricInfo("deg", "lower", "The same of a target and a crop of 96 % of its side."),
    }

    class Options(EstimatorError.Options):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pnp"}, validate_default=True, description="Measures the pose in degrees."
        )
