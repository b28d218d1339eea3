"""Eye loss: the swap looks where the target looks, after GHOST (Groshev et al., IEEE Access 2022)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.bases import timm_network
from fsframework.core.components import Estimator, Loss
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult

EYES = slice(36, 48)  # of the 68 landmarks
POINTS = 68
SIDE = 64  # of the network's input, in pixels


class Eyes(Loss):
    """Mean distance of twelve eye landmarks of swap and target, in units of the crop's side, by a network of its own.

    Landmarks that trees or a cascade find pass no gradient. So a small network learns from them while the swapper
    trains: its own step (`critic`) brings its 68 landmarks of the truth to the teacher's. For its first `learn` steps
    the swapper is not asked for anything. GHOST compares heat maps of a landmark network that was trained before.
    """

    name = "eyes"

    class Options(Loss.Options):
        teacher: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"}, validate_default=True, description="Finds the 68 landmarks to learn."
        )
        backbone: str = Field("mobilenetv3_small_050", description="The network's name in timm.")
        learn: int = Field(500, ge=0, description="Steps in which only the landmark network learns.")

    options: Options
    steps: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.teacher: Estimator = options.teacher.build_estimator("landmarks68", "teacher")
        self.teacher.requires_grad_(False)
        self.net = timm_network(options.backbone, num_classes=2 * POINTS)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def load(self) -> None:
        """Load the teacher."""
        self.teacher.load()

    def landmarks(self, images: Tensor) -> Tensor:
        """The network's landmarks (B, 68, 2) of (B, 3, S, S), in units of S from the crop's corner."""
        small = images if images.shape[-1] == SIDE else F.interpolate(images, size=(SIDE, SIDE), mode="bilinear")
        found: Tensor = self.net(small).float()
        return 0.5 + 0.5 * found.unflatten(1, (POINTS, 2))

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """A scalar; 0 in the first steps."""
        if int(self.steps) < self.options.learn:
            return output.image.sum() * 0.0
        self.net.eval()  # another batch's statistics would move the landmarks
        with torch.no_grad():
            goal = self.landmarks(batch.target.image)[:, EYES]
        return torch.linalg.vector_norm(self.landmarks(output.image)[:, EYES] - goal, dim=2).mean()

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Mean distance of the network's landmarks of the truth and the teacher's, a scalar."""
        self.steps += 1
        self.net.train()
        with torch.no_grad():
            taught = (self.teacher(FaceBatch.of(batch.ground_truth)).float() + 0.5) / batch.ground_truth.shape[-1]
        known = taught.isfinite().all(dim=(1, 2))
        apart = torch.linalg.vector_norm(self.landmarks(batch.ground_truth) - taught.nan_to_num(0.5), dim=2).mean(dim=1)
        return (apart * known).sum() / known.sum().clamp(min=1)
