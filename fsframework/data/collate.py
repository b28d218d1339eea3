"""Collate samples into batches."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fsframework.core.types import FaceBatch, Sample, SwapBatch
from fsframework.media.tensor import to_tensor

Convert = Callable[[np.ndarray], Tensor]  # images as a tensor


def collate(
    samples: Sequence[Sample], indices: Sequence[int], persons: np.ndarray, convert: Convert = to_tensor
) -> FaceBatch:
    """Samples as a batch for networks.

    Parameters
    ----------
    samples:
        B samples.
    indices:
        The place of each in its data set.
    persons:
        `Dataset.persons` of that data set, (N,).
    convert:
        Makes a tensor of images (N, H, W, 3) uint8.
    """
    places = np.asarray(indices, dtype=np.int64)
    return FaceBatch(
        image=convert(np.stack([sample.image for sample in samples])),
        person=torch.from_numpy(np.asarray(persons, dtype=np.int64)[places]),
        index=torch.from_numpy(places),
        landmarks=torch.from_numpy(np.stack([sample.landmarks for sample in samples]).astype(np.float32)),
    )


def paired(source: FaceBatch, target: FaceBatch, samples: Sequence[Sample], convert: Convert = to_tensor) -> SwapBatch:
    """Sources and targets as a batch whose right answer is the target, where it is known.

    `samples` are the targets', `convert` is `collate`'s. `Batch.known` is 1 on pairs of a picture with itself and where
    a sample says so.
    """
    same = source.index == target.index  # (B,)
    kept = [
        np.zeros(sample.image.shape[:2], bool) if sample.valid_mask is None else sample.valid_mask for sample in samples
    ]
    known = torch.from_numpy(np.stack(kept))[:, None] | same[:, None, None, None]  # (B, 1, S, S)
    truth = target.image
    if any(sample.ground_truth is not None for sample in samples):
        truth = convert(np.stack([s.image if s.ground_truth is None else s.ground_truth for s in samples]))
    return SwapBatch(source=source, target=target, same=same, ground_truth=truth, valid_mask=known.float())
