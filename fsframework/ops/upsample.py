"""Maps of twice the side, by bilinear interpolation.

torch's gradient adds up place by place with atomic operations, of maps that autocast has made float32. On GPUs it is
gathered here instead (doubling_triton.py), in the type of the maps and in a fixed order.
"""

from typing import cast

from torch import Tensor
from torch.nn import functional as F

from fsframework.ops.triton import launch


def upsample2x(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) to (B, C, 2H, 2W)."""
    if launch.usable(maps):
        from fsframework.ops.triton import upsample

        return cast(Tensor, upsample.upsample2x(maps))
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear").to(maps.dtype)
