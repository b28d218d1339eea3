"""Convert images between numpy and torch."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """Images (N, H, W, 3) uint8 as a tensor (N, 3, H, W) float32: 0 becomes -1, 255 becomes 1."""
    return to_float(to_planes(images))


def to_planes(images: np.ndarray) -> Tensor:
    """Images (N, H, W, 3) uint8 as a tensor (N, 3, H, W) uint8: a quarter of the bytes, for the way to a device."""
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))  # a copy: neither read-only nor strided


def to_float(planes: Tensor) -> Tensor:
    """What `to_planes` made as networks take it: float32 in [-1, 1]."""
    return planes.to(torch.float32).div_(127.5).sub_(1)


def to_images(tensor: Tensor) -> np.ndarray:
    """A tensor (N, 3, H, W) in [-1, 1] as images (N, H, W, 3) uint8, rounded; values outside are clamped.

    `to_images(to_tensor(images))` equals `images`.
    """
    levels = tensor.detach().to(torch.float32).add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grey(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 without its colours: their weighted mean (luma, ITU-R BT.601) in each channel."""
    luma = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)  # (H, W)
    return np.repeat(luma[..., None], 3, axis=2)


def is_grey(image: np.ndarray) -> bool:
    """Whether an image (H, W, 3) uint8 has no colours but the few that JPEG adds to a grey one."""
    return bool(np.percentile(np.ptp(image, axis=2), 99) <= 4)
