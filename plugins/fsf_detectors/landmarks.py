"""Landmark loss: keep the target's positions of eyes, nose and mouth."""

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

BOX = (0.19, 0.25, 0.63)  # left, top and width of the face in a whole-head crop: the O-Net's input
SIDE = 48  # input side of the O-Net in pixels


class Landmarks(Loss):
    """Mean distance of the five landmarks of swap and target by MTCNN's O-Net, in units of the face box.

    On reversed pairs the target is the ground truth.

    This loss is not part of FaceShifter, which preserves pose and expression by the attribute loss alone
    (arXiv:1912.13457, equation 7). The estimator `pnp` uses the same five points. After training with this loss, its
    pose error is therefore marked as measured by a network of the training.
    """

    name = "landmarks"
    network = "mtcnn"

    class Options(Loss.Options):
        shift: float = Field(0.03, ge=0, le=0.2, description="Maximum random shift of the face box, in crop sides.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.onet = onet()

    def load(self) -> None:
        """Load the O-Net's weights from the package mtcnn. Raises UserError if it is missing or was changed."""
        load_network(self.onet, "onet.lz4")

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar."""
        # Random numbers are drawn on the GPU, so that a CUDA graph draws new ones at each replay.
        move = self.options.shift * (2 * torch.rand(3, device=output.image.device) - 1)
        moves = move.unbind() if move.is_cuda else move.tolist()
        box = [edge + shift for edge, shift in zip(BOX, moves, strict=True)]
        with torch.no_grad():
            goal = self.points(batch.attribute_truth, box)
        return torch.linalg.vector_norm(self.points(output.image, box) - goal, dim=2).mean()

    def points(self, images: Tensor, box: Sequence[float | Tensor]) -> Tensor:
        """Return landmarks (B, 5, 2), in units of the box, of aligned crops (B, 3, S, S)."""
        with without_autocast(images.device):  # bfloat16's rounding is as large as the distances
            output = self.onet(crop_box(images.float(), box, (SIDE, SIDE)) * (127.5 / 128))  # (B, 15)
        return output[:, 4:14].unflatten(1, (2, 5)).transpose(1, 2)
