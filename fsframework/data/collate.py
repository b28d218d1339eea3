"""Collate samples into batches: as pixels on the way to a device, as floats for networks."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fsframework.core.types import FaceBatch, Sample, SwapBatch, TensorFields
from fsframework.media.tensor import to_float, to_planes


class _Pixels(TensorFields):
    def pin_memory(self) -> Self:
        """Return the same values in memory that a GPU can fetch while the program goes on."""
        return self._each(lambda value: value.pin_memory())

    def copy_(self, other: Self) -> None:
        """Copy another batch's values, None in the same fields, into the memory of this one."""
        for entry in fields(self):  # type: ignore[arg-type]
            mine, its = getattr(self, entry.name), getattr(other, entry.name)
            if isinstance(mine, Tensor):
                mine.copy_(its, non_blocking=True)
            elif mine is not None:
                mine.copy_(its)


@dataclass(frozen=True, eq=False)
class FacePixels(_Pixels):
    """A batch of samples whose images are bytes, a quarter of `FaceBatch`."""

    image: Tensor  # (B, 3, S, S) uint8
    person: Tensor  # these as in FaceBatch
    index: Tensor
    landmarks: Tensor

    def to_float(self) -> FaceBatch:
        """Return the batch that networks take."""
        return FaceBatch(to_float(self.image), self.person, self.index, self.landmarks)


@dataclass(frozen=True, eq=False)
class SwapPixels(_Pixels):
    """A batch of pairs whose images are bytes, each of them once."""

    source: FacePixels
    target: FacePixels
    same: Tensor  # (B,) bool, the source is the target's own picture
    ground_truth: Tensor | None  # (B, 3, S, S) uint8; None: the target's image
    valid_mask: Tensor  # (B, 1, S, S) bool, where the ground truth is known

    def to_float(self) -> SwapBatch:
        """Return the batch that networks take, best on their device."""
        target = self.target.to_float()
        return SwapBatch(
            source=self.source.to_float(),
            target=target,
            same=self.same,
            ground_truth=target.image if self.ground_truth is None else to_float(self.ground_truth),
            valid_mask=self.valid_mask.float(),
        )

    def with_ground_truth(self) -> Self:
        """Return the same batch with a ground truth in memory of its own."""
        return replace(self, ground_truth=self.target.image.clone()) if self.ground_truth is None else self


def collate(samples: Sequence[Sample], indices: Sequence[int], persons: np.ndarray) -> FaceBatch:
    """Return samples as a batch for networks. The parameters are those of `collate_pixels`."""
    return collate_pixels(samples, indices, persons).to_float()


def collate_pixels(samples: Sequence[Sample], indices: Sequence[int], persons: np.ndarray) -> FacePixels:
    """Return samples as a batch of bytes.

    Parameters
    ----------
    samples:
        B samples.
    indices:
        The place of each in its data set.
    persons:
        `Dataset.persons` of that data set, (N,).
    """
    places = np.asarray(indices, dtype=np.int64)
    return FacePixels(
        image=to_planes(np.stack([sample.image for sample in samples])),
        person=torch.from_numpy(np.asarray(persons, dtype=np.int64)[places]),
        index=torch.from_numpy(places),
        landmarks=torch.from_numpy(np.stack([sample.landmarks for sample in samples]).astype(np.float32)),
    )


def collate_pairs(source: FacePixels, target: FacePixels, samples: Sequence[Sample]) -> SwapPixels:
    """Return pairs of faces, with the ground truths that the targets' samples bring.

    `valid_mask` is True on pairs of a picture with itself and where a sample says so.
    """
    same = source.index == target.index  # (B,)
    shape = samples[0].image.shape[:2]
    masks = [np.zeros(shape, bool) if sample.valid_mask is None else sample.valid_mask for sample in samples]
    truth = None
    if any(sample.ground_truth is not None for sample in samples):
        truth = to_planes(np.stack([s.image if s.ground_truth is None else s.ground_truth for s in samples]))
    valid = torch.from_numpy(np.stack(masks))[:, None] | same[:, None, None, None]  # (B, 1, S, S)
    return SwapPixels(source=source, target=target, same=same, ground_truth=truth, valid_mask=valid)
