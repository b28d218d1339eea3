"""A data set whose targets are partly hidden, for HEAR-Net's training (arXiv:1912.13457, section 3.2)."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from fsf_occluders.composite import LARGEST, composite, face_region, match_colours, place
from fsf_occluders.sources import Cutouts, Drawn
from fsframework.core.bases import DatasetWrapper
from fsframework.core.types import Sample

Kind = Literal["hand", "object", "microphone", "cup", "phone", "glasses", "mask", "hair"]
TRIES = 6  # of different occluders, before a face stays uncovered


def _some(mix: dict[Kind, float]) -> dict[Kind, float]:
    if not any(mix.values()):
        raise ValueError("no kind has a share above 0")
    return mix


Mix = Annotated[dict[Kind, Annotated[float, Field(ge=0)]], AfterValidator(_some)]
USUAL: dict[Kind, float] = {
    "hand": 6,
    "object": 6,
    "glasses": 1.5,
    "cup": 1.5,
    "phone": 1.5,
    "hair": 1.5,
    "microphone": 1,
    "mask": 1,
}


class Occluded(DatasetWrapper):
    """Another data set with hands, objects, glasses and the like over three quarters of its targets.

    The paper takes hands and objects from other collections; we draw them, or take cut-outs from a folder. As in the
    paper, masks are no label: `Sample.known` tells the truth to those who measure. What is drawn in a split differs
    from what is drawn in the other.
    """

    name = "occluded"

    class Options(DatasetWrapper.Options):
        share: float = Field(0.75, ge=0, le=1, description="Share of the targets that are covered.")
        both: float = Field(0.3, ge=0, le=1, description="Share of the covered targets that get two occluders.")
        mix: Mix = Field(USUAL, description="How often each kind of occluder comes, relatively.")
        folder: Path | None = Field(None, description="A folder of cut-outs (RGBA pictures) to use instead.")
        pool: int = Field(512, ge=1, description="How many different occluders there are at most.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.source: Drawn | Cutouts | None = None

    def load(self) -> None:
        """Load the inner data set, and the folder's cut-outs. Raises UserError if one of them cannot be read."""
        super().load()
        options = self.options
        if options.folder is None:
            self.source = Drawn(
                {str(kind): often for kind, often in options.mix.items()}, options.pool, self.size, self.split
            )
        else:
            self.source = Cutouts(options.folder, options.pool, self.size)

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """The face, perhaps covered; `known` is where an occluder lies. All randomness comes from `rng`."""
        sample = self.inner.target(index, rng)
        if rng.random() >= self.options.share:
            return sample
        covered = self._cover(sample, rng)
        return self._cover(covered, rng) if rng.random() < self.options.both else covered

    def ground_truth_swap(self, source: int, target: int) -> None:
        """Not known: the inner data set's has no occluder."""

    def _cover(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample with one occluder more, unless it would hide too much of the face."""
        if self.source is None:
            raise RuntimeError("load() comes before target()")
        for _ in range(TRIES):
            occluder, spread = self.source.take(rng)
            matrix = place(occluder, spread, sample.landmarks, self.size, rng)
            if matrix is None:
                continue
            rgba = match_colours(occluder.rgba, sample.image, rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.5))
            blur, shadow = rng.uniform(0, 0.006) * self.size, max(rng.uniform(-0.3, 0.45), 0.0)
            image, alpha = composite(sample.image, rgba, matrix, blur, shadow)
            known = alpha > 0.5
            if sample.valid_mask is not None:
                known |= sample.valid_mask
            if known[face_region(self.size)].mean() <= LARGEST:
                return replace(sample, image=image, valid_mask=known)
        return sample
