"""A small network that says which pixels are face and not what lies in front of it."""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.bases import timm_network
from fsframework.core.components import ComponentOptions, Estimator
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d
from fsframework.utils.weights import below, fill, load_state

INSIDE = "refiner.mask"  # where a run of a `blend` with this mask keeps the weights


def mixed(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution 3x3, batch norm, ReLU."""
    return nn.Sequential(
        Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class FaceSegmenter(Estimator):
    """One of timm's networks with a U-Net head (Ronneberger et al., arXiv:1505.04597): masks (B, 1, S, S) in [0, 1].

    It is trained by a recipe (recipes/nirkin.yaml) as the mask of a `blend`, by the loss `mask` with `of: refiner`, on
    faces with drawn occluders. Nirkin et al. (arXiv:1704.06729, section 3.3) use FCN-8s with VGG on pictures that were
    segmented by hand.
    """

    name = "face-segmenter"
    quantity = "mask"

    class Options(ComponentOptions):
        backbone: str = Field("mobilenetv3_small_050", description="The network's name in timm; it gives feature maps.")
        width: int = Field(32, ge=8, description="Channels of the head's finest level; coarser ones have more.")
        weights: Path | None = Field(
            None, description="What a run or `fsf export` left of it (.safetensors); null: as it starts, for training."
        )
        sha256: str | None = Field(
            None, pattern="^[0-9a-fA-F]{64}$", description="What the SHA-256 of `weights` must be; null: any."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.backbone = timm_network(options.backbone, features_only=True)
        channels = [3, *self.backbone.feature_info.channels()]  # of the picture, and of maps from fine to coarse
        widths = [min(options.width * 2**level, 128) for level in range(len(channels))]
        self.head = nn.ModuleList()
        deeper = channels[-1]
        for skip, width in zip(channels[-2::-1], widths[-2::-1], strict=True):
            self.head.append(mixed(deeper + skip, width))
            deeper = width
        self.last = nn.Conv2d(deeper, 1, 1)
        self.requires_grad_(options.weights is None)
        self.eval()

    def load(self) -> None:
        """Read the weights, if there are any. Raises UserError if they cannot be read or are of another network."""
        path = self.options.weights
        if path is None:
            return
        state = load_state(path, self.options.sha256)
        fill(self, below(INSIDE, state), f"{path}: is no face-segmenter of {self.options.backbone}")

    def forward(self, faces: FaceBatch) -> Tensor:
        """Masks (B, 1, S, S) in [0, 1]."""
        maps = [faces.image, *self.backbone(faces.image)]
        h = maps.pop()
        for layer in self.head:
            skip = maps.pop()
            h = F.interpolate(h.float(), size=skip.shape[2:], mode="bilinear")
            h = layer(torch.cat([h, skip], dim=1))
        return torch.sigmoid(self.last(h).float())
