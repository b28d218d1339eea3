"""The values that components exchange.

Outside networks an image is a numpy array, uint8, RGB, (H, W, 3). Inside networks it is a torch tensor, float,
RGB, in [-1, 1], (B, 3, S, S). `fsframework.media.tensor` converts between them. Point coordinates are (x, y) in
pixels, where (0, 0) is the centre of the first pixel. An aligned crop shows one whole head, turned upright
(`fsframework.faces.align`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Face:
    """A detected face in a frame, in frame pixels."""

    box: np.ndarray  # (4,) left, top, right, bottom
    landmarks: np.ndarray  # (5, 2) eye, eye, nose, mouth corner, mouth corner; viewer's left first
    score: float  # 0..1


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """An aligned crop and its position in the frame."""

    image: np.ndarray  # (S, S, 3) uint8
    matrix: np.ndarray  # (2, 3) from frame pixels to crop pixels
    face: Face
    inside: np.ndarray | None = None  # (S, S) bool, the pixels that the frame shows; None if it shows all


@dataclass(frozen=True, eq=False)
class Sample:
    """An aligned crop of a dataset."""

    image: np.ndarray  # (S, S, 3) uint8
    name: str  # unique in the dataset, and constant
    person: str | None  # None: unknown
    landmarks: np.ndarray  # (5, 2) crop pixels
    valid_mask: np.ndarray | None = None  # (S, S) bool: pixels that a correct swap keeps, such as an occluder's
    ground_truth: np.ndarray | None = None  # (S, S, 3) uint8: the desired output for the image, if not the image itself


class TensorFields:
    """A dataclass of tensors and nested dataclasses of the same kind, some of which may be None."""

    def to(self, device: torch.device | str) -> Self:
        """Return the same values on another device."""
        ahead = torch.device(device).type != "cpu"  # copies to the CPU must be complete when they are read
        return self._each(
            lambda value: value.to(device, non_blocking=ahead) if isinstance(value, Tensor) else value.to(device)
        )

    def _each(self, change: Callable[[Any], Any]) -> Self:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: None if value is None else change(value) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class FaceBatch(TensorFields):
    """A batch of samples, the input of networks."""

    image: Tensor  # (B, 3, S, S) float32 in [-1, 1]
    person: Tensor  # (B,) int64, the person's number in the dataset; -1 unknown
    index: Tensor  # (B,) int64, the index in the dataset; -1 none
    landmarks: Tensor  # (B, 5, 2) crop pixels; NaN unknown

    @classmethod
    def of(cls, image: Tensor, landmarks: Tensor | None = None) -> Self:
        """Return a batch of images (B, 3, S, S), and landmarks (B, 5, 2) if given, with unknown persons and indices."""
        count = len(image)
        unknown = torch.full((count,), -1, dtype=torch.int64, device=image.device)
        if landmarks is None:
            landmarks = torch.full((count, 5, 2), torch.nan, device=image.device)
        return cls(image=image, person=unknown, index=unknown, landmarks=landmarks)


@dataclass(frozen=True, eq=False)
class SwapBatch(TensorFields):
    """Pairs of source (identity) and target (attributes), with the ground truth where it is known."""

    source: FaceBatch
    target: FaceBatch
    same: Tensor  # (B,) bool, source and target are the same image
    ground_truth: Tensor  # (B, 3, S, S) the desired swap: the target's image unless the dataset has another
    valid_mask: Tensor  # (B, 1, S, S) 0..1, where the ground truth is valid: everywhere on same and reversed pairs
    reversed: Tensor | None = None  # (B,) bool, the target is a swap made from the ground truth; None: no target is

    @property
    def supervised(self) -> Tensor:
        """Return which pairs have a ground truth for every pixel: same and reversed pairs, (B,) bool."""
        return self.same if self.reversed is None else self.same | self.reversed

    @property
    def attribute_truth(self) -> Tensor:
        """Return images with the right attributes: the targets', on reversed pairs the ground truths, (B, 3, S, S)."""
        if self.reversed is None:
            return self.target.image
        return torch.where(self.reversed[:, None, None, None], self.ground_truth, self.target.image)

    @classmethod
    def of(cls, source: FaceBatch, target: FaceBatch) -> Self:
        """Return pairs without ground truth, as in inference."""
        image = target.image
        same = torch.zeros(len(image), dtype=torch.bool, device=image.device)
        return cls(
            source=source, target=target, same=same, ground_truth=image, valid_mask=torch.zeros_like(image[:, :1])
        )


@dataclass(frozen=True, eq=False)
class SwapResult:
    """The swaps of a batch, with intermediate results for the losses."""

    image: Tensor  # (B, 3, S, S) the swap
    coarse: Tensor  # (B, 3, S, S) the swap before the refiner; the same tensor where there is no refiner
    z_id: Tensor  # (B, D) the sources' embeddings
    z_att: list[Tensor] = field(default_factory=list)  # of the targets, (B, C_k, H_k, W_k), coarse to fine
    mask: Tensor | None = None  # (B, 1, S, S) 0..1, the generator's own blending mask, see `Generator.composes`

    def to(self, device: torch.device | str) -> "SwapResult":
        """Return the same values on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        z_att = [level.to(device) for level in self.z_att]
        return SwapResult(self.image.to(device), self.coarse.to(device), self.z_id.to(device), z_att, mask)
