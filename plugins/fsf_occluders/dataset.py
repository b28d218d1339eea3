"""Dataset wrapper with synthetic occlusions of targets, for HEAR-Net's training (arXiv:1912.13457, section 3.2)."""

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
TRIES = 6  # maximum number of occluders that are tried before a face remains uncovered


def _some(mix: dict[Kind, float]) -> dict[Kind, float]:
    if not any(mix.values()):
        raise ValueError("no kind has a weight above 0")
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
    """Dataset wrapper that covers three quarters of the targets with hands, objects, glasses and similar occluders.

    The paper uses hands and objects of other datasets. Here they are drawn, or taken from a folder of cut-outs. As in
    the paper, occlusion masks do not supervise training; `Sample.valid_mask` holds them for evaluation. Occluders of
    the splits differ.
    """

    name = "occluded"

    class Options(DatasetWrapper.Options):
        share: float = Field(0.75, ge=0, le=1, description="Fraction of the targets that are covered.")
        both: float = Field(0.3, ge=0, le=1, description="Fraction of the covered targets with two occluders.")
        mix: Mix = Field(USUAL, description="Relative frequency of each kind of occluder.")
        folder: Path | None = Field(None, description="Folder of cut-outs (RGBA pictures) to use instead.")
        opacity: float = Field(
            0.5,
            ge=0,
            lt=1,
            description="Opacity above which a pixel counts as occluded; near 0, clear lenses of glasses count, too.",
        )
        pool: int = Field(512, ge=1, description="Maximum number of different occluders.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.source: Drawn | Cutouts | None = None

    def load(self) -> None:
        """Load the inner dataset and the folder's cut-outs. Raises UserError if one of them cannot be read."""
        super().load()
        options = self.options
        if options.folder is None:
            self.source = Drawn(
                {str(kind): often for kind, often in options.mix.items()}, options.pool, self.size, self.split
            )
        else:
            self.source = Cutouts(options.folder, options.pool, self.size)

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the face, randomly covered; `valid_mask` marks the occluder. All randomness is from `rng`."""
        return self._covered(self.inner.target(index, rng), rng)

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the inner dataset's reversed target; image and ground truth have the same random occluders."""
        sample = self.inner.reversed_target(index, rng)
        return replace(self._covered(replace(sample, valid_mask=None), rng), valid_mask=sample.valid_mask)

    def ground_truth_swap(self, source: int, target: int) -> None:
        """Return None: the inner dataset's ground-truth swap has no occluder."""

    def _covered(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with no, one or two occluders."""
        if rng.random() >= self.options.share:
            return sample
        covered = self._cover(sample, rng)
        return self._cover(covered, rng) if rng.random() < self.options.both else covered

    def _cover(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with one more occluder, unless too much of the face would be covered."""
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
            valid_mask = alpha > self.options.opacity
            if sample.valid_mask is not None:
                valid_mask |= sample.valid_mask
            if valid_mask[face_region(self.size)].mean() <= LARGEST:
                truth = sample.ground_truth
                if truth is not None:
                    truth, _ = composite(truth, rgba, matrix, blur, shadow)
                return replace(sample, image=image, valid_mask=valid_mask, ground_truth=truth)
        return sample
