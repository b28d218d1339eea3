"""Preservation of occlusions of the target's face (FaceShifter, section 3.2).

The paper has qualitative results only. Here the ground truth is known: occluders are composited onto the targets, and a
correct swap preserves their pixels.
"""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from fsf_benchmarks.masked import mean_where
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, MetricInfo
from fsframework.core.part import Part, use
from fsframework.core.types import SwapBatch, SwapResult


class Occlusion(Benchmark):
    """Measure the error in the pixels of composited occluders, in grey levels; lower is better.

    The baseline `without-refiner` shows the contribution of a refiner such as HEAR-Net. A target without a fitting
    occluder is a failure. Copying the target has no error; copying the source has approximately the largest.
    """

    name = "occlusion"
    fails = "No occluder fits onto the target."
    metrics: ClassVar = {
        "error": MetricInfo(
            "", "lower", "Mean absolute difference in the occluders' pixels, in grey levels (0 to 255)."
        ),
        "error_rest": MetricInfo("", "lower", "The same in all other pixels: mostly the intended change of the face."),
    }

    class Options(ComponentOptions):
        data: Annotated[Part, use("datasets")] = Field(
            default={"use": "occluded", "share": 1.0},
            validate_default=True,
            description="Dataset wrapper that covers the evaluation's targets and marks the occluders.",
        )

    options: Options

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        levels = (swap.image - batch.target.image).abs().mean(dim=1, keepdim=True) * 127.5  # (B, 1, S, S)
        inside, outside = batch.valid_mask, 1 - batch.valid_mask
        return {"error": mean_where(levels, inside), "error_rest": mean_where(levels, outside)}
