"""Encoders for computer graphics: identity as image and landmarks, attributes as the target image."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import AttributeEncoder, ComponentOptions, Estimator, IdentityEncoder
from fsframework.core.part import Part, use
from fsframework.core.types import FaceBatch

POINTS = 68


class FaceTexture(IdentityEncoder):
    """Identity encoder whose vector holds the resized image and 68 landmarks in units of its side.

    The vector is no embedding: it has no unit length, and cosines between vectors are meaningless.
    """

    name = "face-texture"
    differentiable = False
    metric = False

    class Options(ComponentOptions):
        side: int = Field(128, ge=32, le=512, description="Side of the resized image in pixels.")
        landmarks: Annotated[Part, use("estimators")] = Field(
            default={"use": "dlib-landmarks"}, validate_default=True, description="Estimator of 68 landmarks."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.landmarks: Estimator = options.landmarks.build_estimator("landmarks68", "landmarks")
        self.dim = 3 * options.side**2 + 2 * POINTS

    def load(self) -> None:
        """Load the landmark estimator."""
        self.landmarks.load()

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return the vectors (B, 3 side^2 + 136)."""
        side, size = self.options.side, faces.image.shape[-1]
        image = F.interpolate(faces.image, size=(side, side), mode="bilinear", antialias=size > side)
        points = (self.landmarks(faces).to(image) + 0.5) / size  # from the image's top left corner
        return torch.cat([image.flatten(1), points.flatten(1)], dim=1)


def unpacked(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, side, side) and landmarks (B, 68, 2), in their pixels, from vectors of `FaceTexture`."""
    side = round(((vectors.shape[1] - 2 * POINTS) / 3) ** 0.5)
    image = vectors[:, : 3 * side * side].unflatten(1, (3, side, side))
    return image, vectors[:, 3 * side * side :].unflatten(1, (POINTS, 2)) * side - 0.5


class Picture(AttributeEncoder):
    """Attribute encoder that returns the target image."""

    name = "picture"

    def __init__(self, options: ComponentOptions, size: int) -> None:
        super().__init__(options, size)
        self.channels = [3]

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return one attribute map, the image (B, 3, S, S)."""
        return [faces.image]
