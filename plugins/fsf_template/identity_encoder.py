"""An identity encoder that compares small grey images."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fsframework import ComponentOptions, FaceBatch, IdentityEncoder


class TemplateIdentityEncoder(IdentityEncoder):
    """The centre of the face as a small grey image, without its mean and contrast."""

    name = "template-identity-encoder"
    match_threshold = 0.903  # false-accept rate 1e-3 on ORL; measure yours with: fsf bench verification

    class Options(ComponentOptions):
        side: int = Field(16, ge=4, le=32, description="Side of the small picture, in pixels.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.dim = options.side**2  # length of an embedding

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return embeddings (B, dim) of unit length."""
        size = faces.image.shape[-1]
        middle = faces.image[..., size // 4 : size * 7 // 8, size // 4 : size * 3 // 4]
        small = F.interpolate(middle, size=(self.options.side, self.options.side), mode="bilinear", antialias=True)
        grey = small.mean(dim=1).flatten(1)  # (B, dim)
        return F.normalize(grey - torch.mean(grey, dim=1, keepdim=True), dim=1)
