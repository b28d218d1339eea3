"""Upsample maps to twice the side by bilinear interpolation.

torch's gradient sums with atomic operations, one output at a time, over maps that autocast has cast to float32. On GPUs
triton/upsample.py gathers the gradient instead, in the dtype of the maps and in a fixed order.
"""

from typing import cast

from torch import Tensor
from torch.nn import functional as F

from fsframework.ops.triton import launch


def upsample2x(maps: Tensor) -> Tensor:
    """Upsample maps (B, C, H, W) bilinearly; return maps (B, C, 2H, 2W) of the same dtype."""
    if launch.usable(maps):
        from fsframework.ops.triton import upsample

        return cast(Tensor, upsample.upsample2x(maps))
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear").to(maps.dtype)
