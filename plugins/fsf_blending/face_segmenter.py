"""Small segmentation network for the visible face, without occlusions."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.bases import timm_network
from fsframework.core.components import ComponentOptions, Estimator
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d
from fsframework.utils.weights import below, fill, load_state

INSIDE = "refiner.mask"  # prefix of the weights in a run whose refiner is `blend` with this mask
SHIPPED: Literal["shipped"] = "shipped"
WEIGHTS = Path(__file__).with_name("face-segmenter.safetensors")
SHA256 = "c73ebeb9561409588bb16ac9b1cc6149160a17fdbae384b1ba80aae9acad76eb"
SIDE = 128  # of the crops that the shipped weights were trained on, in pixels


def mixed(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block of convolution 3x3, batch norm and ReLU."""
    return nn.Sequential(
        Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class FaceSegmenter(Estimator):
    """Face segmentation: a timm backbone with a U-Net decoder (Ronneberger et al., arXiv:1505.04597).

    The shipped weights are those of recipes/segmenter.yaml: skin, brows, eyes, nose and mouth without hair, hats,
    glasses with the eyes behind them, hands and other occluders. They read crops of 128 px, to which others are
    resized. recipes/nirkin.yaml trains the network on faces with synthetic occluders alone. Both train it as the mask
    of a `blend`, by the loss `mask` with `network: refiner`. Nirkin et al. (arXiv:1704.06729, section 3.3) train FCN-8s
    with VGG on manual segmentations.
    """

    name = "face-segmenter"
    quantity = "mask"

    class Options(ComponentOptions):
        backbone: str = Field("mobilenetv3_small_050", description="Name of the timm model, which has feature maps.")
        width: int = Field(16, ge=8, description="Channels of the decoder's finest level; coarser ones have more.")
        weights: Path | Literal["shipped"] | None = Field(
            SHIPPED,
            description="Weights of a run or `fsf export` (.safetensors); shipped: those of the package; null: random, "
            "for training.",
        )
        sha256: str | None = Field(
            None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.backbone = timm_network(options.backbone, features_only=True)
        channels = [3, *self.backbone.feature_info.channels()]  # of the image, and of maps from fine to coarse
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
        """Load the weights, if the option `weights` is set. Raises UserError if unreadable or of another network."""
        path, sha256 = self.options.weights, self.options.sha256
        if path is None:
            return
        if path == SHIPPED:
            path, sha256 = WEIGHTS, sha256 or SHA256
        state = load_state(path, sha256)
        fill(self, below(INSIDE, state), f"{path}: is no face-segmenter of {self.options.backbone}")

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return masks (B, 1, S, S) in [0, 1]."""
        size = faces.image.shape[-1]
        if self.options.weights != SHIPPED or size == SIDE:
            return self._segment(faces.image)
        images = F.interpolate(faces.image, size=(SIDE, SIDE), mode="bilinear", antialias=size > SIDE)
        return F.interpolate(self._segment(images), size=(size, size), mode="bilinear", antialias=size < SIDE)

    def _segment(self, images: Tensor) -> Tensor:
        """Return masks (B, 1, S, S) in [0, 1] of images (B, 3, S, S)."""
        maps = [images, *self.backbone(images)]
        h = maps.pop()
        for layer in self.head:
            skip = maps.pop()
            h = F.interpolate(h.float(), size=skip.shape[2:], mode="bilinear")
            h = layer(torch.cat([h, skip], dim=1))
        return torch.sigmoid(self.last(h).float())
