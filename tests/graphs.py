"""Small methods that can be converted for other runtimes, and some that cannot."""

import torch
from torch import Tensor

from fsframework.core.components import IdentityEncoder
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.data.samples import SIZE
from fsframework.testing.samples import SmallAttributes, SmallGenerator, SmallIdentity


class PlainIdentity(SmallIdentity):
    traceable = True


class PlainAttributes(SmallAttributes):
    traceable = True


class Masked(SmallGenerator):
    """Paints a mask, too."""

    traceable = True


class TwoFaced(Masked):
    """Something else where it is captured."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        painted = super().forward(z_id, z_att)
        return painted + 0.01 if torch.compiler.is_compiling() else painted


class Branching(Masked):
    """Says that it can be captured, and cannot."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        return super().forward(z_id, z_att) * (1 if float(z_id.sum()) > 0 else -1)


class Choosy(Masked):
    """Paints only some people."""

    def supports(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
        return z_id[:, 0] > 0


def small_swapper(generator: type[SmallGenerator]) -> Swapper:
    torch.manual_seed(0)
    swapper = Swapper(PlainIdentity(), PlainAttributes(SIZE), generator(SIZE, SmallIdentity.dim, [16, 12, 8]))
    return swapper.eval().requires_grad_(False)


def pairs(count: int, size: int, seed: int = 5) -> SwapBatch:
    crops = torch.rand(2, count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return SwapBatch.of(FaceBatch.of(crops[0]), FaceBatch.of(crops[1]))
