"""Pose error: does the swap hold its head as the target does (FaceShifter, arXiv:1912.13457, section 4.1)?"""

from collections.abc import Iterable
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework.components import Benchmark, ComponentOptions, Dataset, Estimator, Figure
from fsframework.errors import UserError
from fsframework.plugins import Part, use
from fsframework.types import Batch, Faces, SwapResult

QUANTITY = "pose_deg"


class PoseError(Benchmark):
    """How far the swap's head pose is from the target's, in degrees; lower is better.

    L2 distance of (yaw, pitch, roll). Estimators differ in scale and noise, so figures of different estimators, and
    those of papers, do not compare. `noise_deg` says how far the estimator is from itself on a target and its mirror
    image, turned back: a method cannot be told from a perfect one far below that.
    """

    name = "pose-error"
    figures: ClassVar = {
        QUANTITY: Figure("deg", "lower", "L2 distance of the head poses (yaw, pitch, roll) of swap and target."),
        "noise_deg": Figure("deg", "lower", "The estimator's own: distance of the poses of a target and its mirror."),
    }

    class Options(ComponentOptions):
        estimator: Annotated[Part, use("estimators")] = Field(
            default={"use": "pnp"}, validate_default=True, description="Measures the pose in degrees."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.estimator: Estimator = options.estimator.build()
        if self.estimator.quantity != QUANTITY:
            raise UserError(
                f"{self.name}: estimator {options.estimator.name}: measures {self.estimator.quantity}; "
                f"choose one that measures {QUANTITY}"
            )
        self._faces: Dataset | None = None
        self._poses: dict[int, Tensor] = {}  # of targets, by their place in `_faces`: pose and its mirror's, (2, 3)

    def load(self) -> None:
        """Read the estimator's weights."""
        self.estimator.load()

    def label(self, trained_against: str | None) -> str:
        detector = getattr(self.options.estimator.options, "detector", None)
        own = isinstance(detector, Part) and detector.name == trained_against
        return f"{self.name} (own network)" if own else self.name

    @torch.no_grad()
    def forward(self, swaps: Iterable[tuple[Batch, SwapResult]], faces: Dataset) -> dict[str, np.ndarray | float]:
        if faces is not self._faces:
            self._faces, self._poses = faces, {}
        errors, noises = [], []
        for batch, swap in swaps:
            pose, mirrored = self._targets(batch.target).unbind(1)  # (B, 3) each
            errors.append(torch.linalg.vector_norm(self._pose(swap.image) - pose, dim=1))
            noises.append(torch.linalg.vector_norm(mirrored - pose, dim=1))
        noise = torch.cat(noises).nanmean()
        return {QUANTITY: torch.cat(errors).numpy(), "noise_deg": float(noise)}

    def _targets(self, targets: Faces) -> Tensor:
        """The poses of targets and of their mirror images (B, 2, 3); each target is measured once."""
        places = targets.index.tolist()
        new = {place: row for row, place in enumerate(places) if place not in self._poses}
        if new:
            images = targets.image[list(new.values())]
            turned = self._pose(images.flip(-1)) * torch.tensor([-1.0, 1.0, -1.0])
            self._poses |= zip(new, torch.stack([self._pose(images), turned], dim=1), strict=True)
        return torch.stack([self._poses[place] for place in places])

    def _pose(self, images: Tensor) -> Tensor:
        return self.estimator(Faces.of(images)).double().cpu()  # (B, 3)
