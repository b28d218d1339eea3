"""Gaze error: does the swap look where the target looks?"""

from typing import Annotated, ClassVar

from pydantic import Field

from fsf_benchmarks.estimator_error import EstimatorError
from fsframework.core.components import MetricInfo
from fsframework.core.part import Part, use


class GazeError(EstimatorError):
    """How far the swap's pupils lie elsewhere in their eyes than the target's, in eye widths; lower is better.

    No angle: a pupil's place between the corners of its eye, which moves by about half an eye's width from the far
    left to the far right. At 64 px an eye is eight pixels wide, so read the noise beside it.
    """

    name = "gaze-error"
    quantity = "gaze"
    noises = ("noise", "noise_crop")
    mirrored = (-1.0, 1.0)
    metrics: ClassVar = {
        "gaze": MetricInfo("", "lower", "Distance of the pupils' places in swap and target, in eye widths."),
        "noise": MetricInfo("", "lower", "The estimator's own: distance of a target and its mirror image."),
        "noise_crop": MetricInfo("", "lower", "The same of a target and a crop of 96 % of its side."),
    }

    class Options(EstimatorError.Options):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pupils"}, validate_default=True, description="Measures the gaze."
        )
