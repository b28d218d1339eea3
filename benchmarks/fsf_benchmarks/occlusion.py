"""Occlusion: what lies in front of the target's face must be there after the swap (FaceShifter, section 3.2).

The paper shows pictures. Here the truth is known: occluders are composited onto the targets, and every right swap keeps
their pixels.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from fsf_benchmarks.masked import mean_where
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, MetricInfo
from fsframework.core.part import Part, use
from fsframework.core.types import SwapBatch, SwapResult


class Occlusion(Benchmark):
    """How far the occluders' pixels are from what was composited onto the target, in grey levels; lower is better.

    `without-refiner` beside it says what a refiner such as HEAR-Net is good for. A target onto which no occluder fits
    counts as a failure. Copying the target has no error, and copying the source about the largest.
    """

    name = "occlusion"
    fails = "No occluder fits onto the target."
    metrics: ClassVar = {
        "error": MetricInfo(
            "", "lower", "Mean absolute difference in the occluders' pixels, in grey levels (0 to 255)."
        ),
        "error_rest": MetricInfo("", "lower", "The same everywhere else: much of it is the new face, as it should be."),
    }

    class Options(ComponentOptions):
        data: Annotated[Part, use("datasets")] = Field(
            default={"use": "occluded", "share": 1.0},
            validate_default=True,
            description="Covers the targets and says where; it wraps the evaluation's faces.",
        )

    options: Options

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        levels = (swap.image - batch.target.image).abs().mean(dim=1, keepdim=True) * 127.5  # (B, 1, S, S)
        inside, outside = batch.valid_mask, 1 - batch.valid_mask
        return {"error": mean_where(levels, inside), "error_rest": mean_where(levels, outside)}
