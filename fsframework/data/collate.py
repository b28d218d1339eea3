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
        """Return the same values in pinned memory, from which copies to a GPU are asynchronous."""
        return self._each(lambda value: value.pin_memory())

    def copy_(self, other: Self) -> None:
        """Copy the values of another batch, which is None in the same fields, into the memory of this one."""
        for entry in fields(self):  # type: ignore[arg-type]
            destination, values = getattr(self, entry.name), getattr(other, entry.name)
            if isinstance(destination, Tensor):
                destination.copy_(values, non_blocking=True)
            elif destination is not None:
                destination.copy_(values)


@dataclass(frozen=True, eq=False)
class FacePixels(_Pixels):
    """A batch of samples with uint8 images, a quarter of the size of `FaceBatch`."""

    image: Tensor  # (B, 3, S, S) uint8
    person: Tensor  # this and the following as in FaceBatch
    index: Tensor
    landmarks: Tensor

    def to_float(self) -> FaceBatch:
        """Return the batch as floats."""
        return FaceBatch(to_float(self.image), self.person, self.index, self.landmarks)


@dataclass(frozen=True, eq=False)
class SwapPixels(_Pixels):
    """A batch of pairs with uint8 images, without duplicates."""

    source: FacePixels
    target: FacePixels
    same: Tensor  # (B,) bool, source and target are the same image
    ground_truth: Tensor | None  # (B, 3, S, S) uint8; None: the target's image
    valid_mask: Tensor  # (B, 1, S, S) bool, where the ground truth is valid
    reversed: Tensor | None = None  # (B,) bool, as in SwapBatch

    def to_float(self) -> SwapBatch:
        """Return the batch as floats; fastest on the networks' device."""
        target = self.target.to_float()
        return SwapBatch(
            source=self.source.to_float(),
            target=target,
            same=self.same,
            ground_truth=target.image if self.ground_truth is None else to_float(self.ground_truth),
            valid_mask=self.valid_mask.float(),
            reversed=self.reversed,
        )

    def with_ground_truth(self) -> Self:
        """Return the same batch with a separate ground truth: the given one, or a copy of the targets' images."""
        return replace(self, ground_truth=self.target.image.clone()) if self.ground_truth is None else self


def collate(samples: Sequence[Sample], indices: Sequence[int], persons: np.ndarray) -> FaceBatch:
    """Return samples as a float batch; parameters as of `collate_pixels`."""
    return collate_pixels(samples, indices, persons).to_float()


def collate_pixels(samples: Sequence[Sample], indices: Sequence[int], persons: np.ndarray) -> FacePixels:
    """Return samples as a uint8 batch.

    Parameters
    ----------
    samples:
        B samples.
    indices:
        The index of each in its data set.
    persons:
        `Dataset.persons` of that data set, (N,).
    """
    index = np.asarray(indices, dtype=np.int64)
    return FacePixels(
        image=to_planes(np.stack([sample.image for sample in samples])),
        person=torch.from_numpy(np.asarray(persons, dtype=np.int64)[index]),
        index=torch.from_numpy(index),
        landmarks=torch.from_numpy(np.stack([sample.landmarks for sample in samples]).astype(np.float32)),
    )


def collate_pairs(
    source: FacePixels, target: FacePixels, samples: Sequence[Sample], reversed_pairs: Sequence[bool] | None = None
) -> SwapPixels:
    """Return pairs of faces, with the ground truths of the targets' `samples`.

    `valid_mask` is True on pairs of an image with itself, and elsewhere that of the sample. A reversed pair's target is
    another image than its source, even at the same index.
    """
    same = source.index == target.index  # (B,)
    swapped = None if reversed_pairs is None else torch.tensor(reversed_pairs, dtype=torch.bool)
    if swapped is not None:
        same = same & ~swapped
    shape = samples[0].image.shape[:2]
    masks = [np.zeros(shape, bool) if sample.valid_mask is None else sample.valid_mask for sample in samples]
    truth = None
    if any(sample.ground_truth is not None for sample in samples):
        truth = to_planes(np.stack([s.image if s.ground_truth is None else s.ground_truth for s in samples]))
    valid = torch.from_numpy(np.stack(masks))[:, None] | same[:, None, None, None]  # (B, 1, S, S)
    return SwapPixels(source=source, target=target, same=same, ground_truth=truth, valid_mask=valid, reversed=swapped)
