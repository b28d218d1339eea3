"""Gaze error of swap and target."""

from typing import Annotated, ClassVar

from pydantic import Field

from fsf_benchmarks.estimator_error import EstimatorError
from fsframework.core.components import MetricInfo
from fsframework.core.part import Part, use


class GazeError(EstimatorError):
    """Measure the distance of the relative pupil positions of swap and target, in eye widths; lower is better.

    The gaze is no angle but the pupil's position between the corners of the eye. Its range is about half an eye width.
    At 64 px an eye is eight pixels wide, so compare the error with the noise.
    """

    name = "gaze-error"
    quantity = "gaze"
    noises = ("noise", "noise_crop")
    mirrored = (-1.0, 1.0)
    metrics: ClassVar = {
        "gaze": MetricInfo("", "lower", "Distance of the pupils' positions in swap and target, in eye widths."),
        "noise": MetricInfo("", "lower", "Noise of the estimator: distance of a target and its mirror image."),
        "noise_crop": MetricInfo("", "lower", "The same of a target and a crop of 96 % of its side."),
    }

    class Options(EstimatorError.Options):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pupils"}, validate_default=True, description="Estimator of the gaze."
        )
