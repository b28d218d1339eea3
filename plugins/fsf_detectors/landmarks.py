"""Landmark loss: eyes, nose and mouth of the swap lie where the target's lie."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fsf_detectors.mtcnn import load_network, onet
from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.faces.align import crop_box
from fsframework.ops.precision import without_autocast

BOX = (0.19, 0.25, 0.63)  # left, top and width of the face in a whole-head crop, as the O-Net wants to see it
SIDE = 48  # of its input, in pixels


class Landmarks(Loss):
    """Mean distance of five landmarks of swap and target, in units of the face box, as MTCNN's O-Net finds them.

    FaceShifter keeps pose and expression by the attribute loss alone (arXiv:1912.13457, equation 7); this loss is no
    part of it. The estimator `pnp` reads the same five points, so a pose
    error that it measures after such a training is marked as by the own network.
    """

    name = "landmarks"
    network = "mtcnn"

    class Options(Loss.Options):
        shift: float = Field(0.03, ge=0, le=0.2, description="Largest random move of the face box, in crop sides.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.onet = onet()

    def load(self) -> None:
        """Read the O-Net's weights from the installed package. Raises UserError if it is missing or was changed."""
        load_network(self.onet, "onet.lz4")

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar."""
        # Drawn on the GPU where there is one: a recorded step replays what happens there.
        move = self.options.shift * (2 * torch.rand(3, device=output.image.device) - 1)
        moves = move.unbind() if move.is_cuda else move.tolist()
        box = [place + each for place, each in zip(BOX, moves, strict=True)]
        with torch.no_grad():
            goal = self.points(batch.target.image, box)
        return torch.linalg.vector_norm(self.points(output.image, box) - goal, dim=2).mean()

    def points(self, images: Tensor, box: Sequence[float | Tensor]) -> Tensor:
        """Landmarks (B, 5, 2) in units of the box, of aligned crops (B, 3, S, S)."""
        with without_autocast(images.device):  # bfloat16 is as coarse as the distances that are measured
            said = self.onet(crop_box(images.float(), box, (SIDE, SIDE)) * (127.5 / 128))  # (B, 15)
        return said[:, 4:14].unflatten(1, (2, 5)).transpose(1, 2)
