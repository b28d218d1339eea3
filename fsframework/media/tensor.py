"""Convert images between numpy and torch.

Tensors of images are in [-1, 1].
"""

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """Convert images (N, H, W, 3) uint8 to a tensor (N, 3, H, W) float32 in [-1, 1]."""
    return to_float(to_planes(images))


def to_planes(images: np.ndarray) -> Tensor:
    """Convert images (N, H, W, 3) uint8 to a tensor (N, 3, H, W) uint8.

    It has a quarter of the bytes of float32 for the transfer to a device.
    """
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))  # a copy: writable and contiguous


def to_float(planes: Tensor) -> Tensor:
    """Convert the result of `to_planes` to float32 in [-1, 1]."""
    return planes.to(torch.float32).div_(127.5).sub_(1)


def to_images(tensor: Tensor) -> np.ndarray:
    """Convert a tensor (N, 3, H, W) in [-1, 1] to images (N, H, W, 3) uint8, rounded and clamped.

    `to_images(to_tensor(images))` equals `images`.
    """
    levels = tensor.detach().to(torch.float32).add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def grey(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 without colours: its luma (ITU-R BT.601) in each channel."""
    luma = np.rint(image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)  # (H, W)
    return np.repeat(luma[..., None], 3, axis=2)


def is_grey(image: np.ndarray) -> bool:
    """Return whether an image (H, W, 3) uint8 is grey: in 99 % of pixels, channels differ by 4 levels at most.

    This tolerates the weak colours that JPEG adds to grey images. Sepia and other tints are colours.
    """
    return bool(np.percentile(np.ptp(image, axis=2), 99) <= 4)


def keep_grey(swaps: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return swaps (N, H, W, 3) uint8, converted to grey where their targets, of the same shape, are grey.

    Networks trained on few grey faces tint them. Everything that returns, shows or measures swaps applies this.
    """
    pairs = zip(swaps, targets, strict=True)
    return np.stack([grey(swap) if is_grey(target) else swap for swap, target in pairs])


def swap_images(swaps: Tensor, targets: Tensor) -> np.ndarray:
    """Convert swaps (N, 3, H, W) in [-1, 1] to images as `to_images` does; into grey targets they are grey."""
    return keep_grey(to_images(swaps), to_images(targets))
