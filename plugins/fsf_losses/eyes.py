"""Eye loss: keep the target's gaze, after GHOST (Groshev et al., IEEE Access 2022)."""

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
SIDE = 64  # input side of the landmark network, in pixels


class Eyes(Loss):
    """Eye loss: mean distance of the twelve eye landmarks of swap and target, in units of the crop's side.

    Regression trees and cascades are not differentiable. A small landmark network is therefore distilled from such a
    teacher during training: `critic` regresses the teacher's 68 landmarks of the ground truth. The loss is 0 during the
    first `learn` steps. On reversed pairs the target is the ground truth. GHOST compares heat maps of a pretrained
    landmark network instead.
    """

    name = "eyes"

    class Options(Loss.Options):
        teacher: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"}, validate_default=True, description="Estimator of 68 landmarks: teacher."
        )
        backbone: str = Field("mobilenetv3_small_050", description="Name of the timm model for the landmark network.")
        learn: int = Field(500, ge=0, description="Steps at the start in which only the landmark network is trained.")

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
        """Return the network's landmarks (B, 68, 2) of images (B, 3, S, S), in units of S from the top left corner."""
        small = images if images.shape[-1] == SIDE else F.interpolate(images, size=(SIDE, SIDE), mode="bilinear")
        output: Tensor = self.net(small).float()
        return 0.5 + 0.5 * output.unflatten(1, (POINTS, 2))

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the loss, a scalar; 0 in the first `learn` steps."""
        if int(self.steps) < self.options.learn:
            return output.image.sum() * 0.0
        self.net.eval()  # with running statistics: those of a batch would move the landmarks
        with torch.no_grad():
            goal = self.landmarks(batch.attribute_truth)[:, EYES]
        return torch.linalg.vector_norm(self.landmarks(output.image)[:, EYES] - goal, dim=2).mean()

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Return the landmark network's loss, a scalar: mean distance to the teacher's landmarks of ground truth."""
        self.steps += 1
        self.net.train()
        with torch.no_grad():
            expected = (self.teacher(FaceBatch.of(batch.ground_truth)).float() + 0.5) / batch.ground_truth.shape[-1]
        valid = expected.isfinite().all(dim=(1, 2))
        distance = torch.linalg.vector_norm(self.landmarks(batch.ground_truth) - expected.nan_to_num(0.5), dim=2).mean(
            dim=1
        )
        return (distance * valid).sum() / valid.sum().clamp(min=1)
