"""Face swapping by computer graphics: render the source's texture on a head in the target's pose."""

from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsf_graphics.face_texture import POINTS, unpacked
from fsf_graphics.head_model import fit, shipped
from fsf_graphics.mesh import render, surface
from fsframework.core.components import ComponentOptions, Estimator, Generator
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch
from fsframework.media.tensor import to_images, to_tensor


class FaceMesh(Generator):
    """Generator that renders the source image as texture of a 68-landmark head model, with a mask; no training.

    This is the common core of FaceSwap (Kowalski, 2016; a program without a paper) and Nirkin et al. (arXiv:1704.06729,
    section 3). Their head models are Candide-3 and a statistical model of scans. The model here was learned from
    landmarks by structure from motion (`fsf_graphics.learn_head`), and has no shape between them.
    """

    name = "face-mesh"

    class Options(ComponentOptions):
        shape: Literal["target", "source"] = Field(
            "target",
            description="Shape of the rendered head: the target's, with its expression, as in FaceSwap, or the "
            "source's, in the target's pose.",
        )
        landmarks: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"},
            validate_default=True,
            description="Estimator of the target's 68 landmarks.",
        )
        soft: float = Field(
            0.06, ge=0, le=0.2, description="Width of the mask's soft edge, inside its outline, in crop sides."
        )

    options: Options

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        side = ((id_dim - 2 * POINTS) / 3) ** 0.5
        if id_dim <= 2 * POINTS or side != round(side) or att_channels != [3]:
            raise ValueError(
                "needs images as input: use the identity encoder face-texture and the attribute encoder picture"
            )
        self.landmarks: Estimator = options.landmarks.build_estimator("landmarks68", "landmarks")

    def load(self) -> None:
        """Load the landmark estimator."""
        self.landmarks.load()

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return the rendered heads on black, in [-1, 1], and their masks: (B, 4, S, S)."""
        (target,) = z_att
        if target.is_meta:  # shape inference: the estimator needs pixels
            return torch.empty(len(target), 4, *target.shape[2:], device="meta")
        pictures, points = unpacked(z_id)
        goals = self.landmarks(FaceBatch.of(target)).double().cpu().numpy()
        textures, sources = to_images(pictures), points.double().cpu().numpy()
        rendered = [self._render(*face) for face in zip(textures, sources, goals, strict=True)]
        image = to_tensor(np.stack([picture for picture, _ in rendered])).to(target)
        mask = torch.from_numpy(np.stack([mask for _, mask in rendered]))[:, None].to(target)
        return torch.cat([image, mask], dim=1)

    def _render(self, texture: np.ndarray, source: np.ndarray, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the image (S, S, 3) uint8 and its soft mask (S, S) float32; both are zero without landmarks."""
        if not (np.isfinite(source).all() and np.isfinite(goal).all()):
            return np.zeros((self.size, self.size, 3), np.uint8), np.zeros((self.size, self.size), np.float32)
        model = shipped()
        source_fit, target_fit = fit(model, source), fit(model, goal)
        skin, head = (
            surface(source_fit),
            surface(target_fit, source_fit.shape if self.options.shape == "source" else None),
        )
        skin[:POINTS, :2] = source  # the detected landmarks instead of the model's fit
        if self.options.shape == "target":
            head[:POINTS, :2] = goal
        image, mask = render(texture, skin, head, self.size)
        return image, faded(mask, self.options.soft * self.size)


def faded(mask: np.ndarray, width: float) -> np.ndarray:
    """Return a soft mask (S, S) float32 that rises from 0 at the edge of `mask` to 1 at `width` pixels inside."""
    if width <= 0:
        return mask.astype(np.float32)
    framed = np.pad(mask.astype(np.uint8), 1)  # the image's border is an edge too
    inside = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.clip(inside / width, 0, 1).astype(np.float32)
