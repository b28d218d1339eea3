"""Blur the inner face of an aligned crop, in which most of a target's identity lies."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fsframework.ops.precision import without_autocast

CENTRE = (0.5, 0.62)  # x and y of the oval in an aligned crop, in units of its side: below the nose
RADII = (0.26, 0.3)  # horizontal and vertical: without the fading edge, cheek to cheek and brows to chin
EDGE = 0.2  # the oval fades out over this share of its radii
REACH = 3.0  # radius of the blur's window, in standard deviations


def oval(size: int, device: torch.device) -> Tensor:
    """Return the mask (size, size) of the inner face: 1 inside, 0 outside."""
    places = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size
    x, y = ((places - centre) / radius for centre, radius in zip(CENTRE, RADII, strict=True))
    distance = (x[None, :].square() + y[:, None].square()).sqrt()  # 1 on the oval
    return ((1 - distance) / EDGE).clamp(0, 1)


def blur_inner_face(images: Tensor, sigma: float) -> Tensor:
    """Return aligned crops (B, 3, S, S) with a Gaussian blur inside the oval, and unchanged outside.

    `sigma` is the standard deviation in units of the side, at most 0.1.
    """
    size = images.shape[-1]
    radius = max(1, round(REACH * sigma * size))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    window = torch.exp(-0.5 * (offsets / (sigma * size)) ** 2)
    window = window / window.sum()
    with without_autocast(images.device):  # the unchanged pixels keep their precision
        h = F.pad(images, (radius,) * 4, mode="reflect")
        h = F.conv2d(h, window.reshape(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
        h = F.conv2d(h, window.reshape(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)
        return torch.lerp(images, h, oval(size, images.device).to(images.dtype))
