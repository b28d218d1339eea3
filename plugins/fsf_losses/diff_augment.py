"""DiffAugment: differentiable augmentation of real and fake images (Zhao et al., arXiv:2006.10738, section 4)."""

from typing import NamedTuple

import torch
from torch import Tensor

SHIFT = 1 / 8  # maximum translation, in units of the side
CUTOUT = 1 / 2  # side of the erased square, in units of the side


class Draw(NamedTuple):
    """The random parameters of a batch of B images with side S."""

    brightness: Tensor  # (B, 1, 1, 1) added, in [-0.5, 0.5]
    saturation: Tensor  # (B, 1, 1, 1) factor of the distance to grey, in [0, 2]
    contrast: Tensor  # (B, 1, 1, 1) factor of the distance to the image's mean, in [0.5, 1.5]
    shift: Tensor  # (B, 2) int64, rows and columns by which the image moves down and right
    corner: Tensor  # (B, 2) int64, row and column of the erased square's top left corner; parts may lie outside

    @classmethod
    def random(cls, images: Tensor) -> "Draw":
        """Return random parameters for images (B, C, S, S)."""
        count, side, device = len(images), images.shape[-1], images.device
        color = torch.rand(3, count, 1, 1, 1, device=device)
        farthest, erased = int(side * SHIFT + 0.5), int(side * CUTOUT + 0.5)
        shift = torch.randint(-farthest, farthest + 1, (count, 2), device=device)
        corner = torch.randint(0, side + 1 - erased % 2, (count, 2), device=device) - erased // 2
        return cls(color[0] - 0.5, 2 * color[1], color[2] + 0.5, shift, corner)


def diff_augment(images: Tensor, draw: Draw) -> Tensor:
    """Return images (B, C, S, S) with other colours, translated, and with a square erased; in that order.

    Values may exceed [-1, 1]. Pixels from outside the image, and erased ones, are 0.
    """
    side = images.shape[-1]
    colored = images + draw.brightness
    grey = colored.mean(dim=1, keepdim=True)
    colored = torch.lerp(grey, colored, draw.saturation)
    mean = colored.mean(dim=(1, 2, 3), keepdim=True)
    colored = torch.lerp(mean, colored, draw.contrast)
    places = torch.arange(side, device=images.device)
    origin = places - draw.shift[:, :, None]  # (B, 2, S): the row and the column that each pixel is from
    inside = (origin >= 0) & (origin < side)
    origin = origin.clamp(0, side - 1)
    rows, columns = (index[:, None] for index in origin.unbind(1))  # (B, 1, S)
    moved = colored.gather(2, rows[..., None].expand_as(images)).gather(3, columns[:, :, None].expand_as(images))
    erased = (places >= draw.corner[:, :, None]) & (places < draw.corner[:, :, None] + int(side * CUTOUT + 0.5))
    shown = _outer(inside) & ~_outer(erased)
    return moved * shown


def _outer(lines: Tensor) -> Tensor:
    """Return the pixels (B, 1, S, S) whose row and whose column are marked in (B, 2, S) bool."""
    rows, columns = lines.unbind(1)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
