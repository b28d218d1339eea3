"""Small segmentation network for the visible face, without occlusions."""

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

INSIDE = "refiner.mask"  # prefix of the weights in a run whose refiner is `blend` with this mask


def mixed(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block of convolution 3x3, batch norm and ReLU."""
    return nn.Sequential(
        Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class FaceSegmenter(Estimator):
    """Face segmentation: a timm backbone with a U-Net decoder (Ronneberger et al., arXiv:1505.04597).

    recipes/nirkin.yaml trains it as the mask of a `blend`, by the loss `mask` with `network: refiner`, on faces with
    synthetic occluders. Nirkin et al. (arXiv:1704.06729, section 3.3) train FCN-8s with VGG on manual segmentations.
    """

    name = "face-segmenter"
    quantity = "mask"

    class Options(ComponentOptions):
        backbone: str = Field("mobilenetv3_small_050", description="Name of the timm model, which has feature maps.")
        width: int = Field(16, ge=8, description="Channels of the decoder's finest level; coarser ones have more.")
        weights: Path | None = Field(
            None, description="Weights of a run or `fsf export` (.safetensors); null: random, for training."
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
        path = self.options.weights
        if path is None:
            return
        state = load_state(path, self.options.sha256)
        fill(self, below(INSIDE, state), f"{path}: is no face-segmenter of {self.options.backbone}")

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return masks (B, 1, S, S) in [0, 1]."""
        maps = [faces.image, *self.backbone(faces.image)]
        h = maps.pop()
        for layer in self.head:
            skip = maps.pop()
            h = F.interpolate(h.float(), size=skip.shape[2:], mode="bilinear")
            h = layer(torch.cat([h, skip], dim=1))
        return torch.sigmoid(self.last(h).float())
