"""Projected GAN: discriminators on the features of a frozen, pretrained network.

Sauer, Chitta, Müller, Geiger, "Projected GANs Converge Faster", arXiv:2111.01007, section 3, with differentiable
augmentation (Zhao et al., arXiv:2006.10738) as there.
"""

from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fsf_losses.diff_augment import Draw, diff_augment
from fsf_losses.efficientnet_lite import CHANNELS, STRIDES, EfficientNetLite0, FrozenConv, scaled_to
from fsf_losses.objectives import DESCRIPTION, Objective, discriminator_objective, generator_objective
from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.ops.precision import without_autocast

LEVELS = len(STRIDES)


class RandomProjection(nn.Module):
    """Mix the channels of each feature map, and then neighbouring scales, by frozen random 1x1 convolutions.

    Cross-channel mixing widens the maps to `width` times 1, 2, 4, 8. Cross-scale mixing adds each map to the coarser
    result, from coarse to fine, and doubles the side (section 3.2).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.channels = [width, *widths[:-1]]
        layers = zip(CHANNELS, widths, strict=True)
        self.across_channels = nn.ModuleList(FrozenConv(inputs, outputs, saved=True) for inputs, outputs in layers)
        pairs = zip(widths, self.channels, strict=True)
        self.across_scales = nn.ModuleList(FrozenConv(inputs, outputs, saved=True) for inputs, outputs in pairs)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return maps (B, channels[k], 2 H_k, 2 W_k) of features (B, CHANNELS[k], H_k, W_k), both fine to coarse."""
        mixed: list[Tensor] = []
        for level in reversed(range(LEVELS)):
            h = self.across_channels[level](features[level])
            if mixed:
                h = h + mixed[-1]
            # 1x1 convolution and upsampling commute, because bilinear weights add up to 1: the small map is cheaper.
            h = self.across_scales[level](h)
            mixed.append(F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True))
        return mixed[::-1]


class FeatureDiscriminator(nn.Module):
    """Discriminator of one level: spectrally normalised 4x4 convolutions of stride 2 to logits.

    Batch norms use the statistics of the batch. Real and fake images are therefore separate batches, as in the paper's
    code.
    """

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            convolution = spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            blocks += [convolution, nn.BatchNorm2d(outputs, track_running_stats=False), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*blocks)
        self.last = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input features of the last layer (B, C, H, W) and the logits (B, 1, H, W), in float32."""
        features = self.body(h)
        return features.float(), self.last(features).float()


class ProjectedGan(Loss):
    """Adversarial loss with discriminators on features of EfficientNet-Lite0 (Projected GAN, arXiv:2111.01007).

    Four discriminators see randomly projected features of strides 4 to 32. They learn from far fewer images than those
    on pixels. Real images are the ground truth. Departures from the paper: swap and ground truth of a pair share their
    augmentation, so that `feature_matching_weight` compares the same places. Logits are a map of side S / 32, by a 3x3
    convolution; the paper's 4x4 convolution without padding needs 224 px. The trunk was trained on ImageNet. Do not
    judge results by the same features.
    """

    name = "projected-gan"

    class Options(Loss.Options):
        width: int = Field(
            64,
            ge=8,
            description="Channels of the finest projected features; coarser ones have up to 4 times as many. 64 is the "
            "paper's; 32 takes half the time.",
        )
        side: int | None = Field(
            None,
            ge=64,
            multiple_of=32,
            description="Side in pixels to which images are scaled for the trunk; null: the crop's, at least 128. The "
            "paper scales to 224.",
        )
        augment: bool = Field(
            True, description="Whether DiffAugment (arXiv:2006.10738) changes colours, translates and erases a square."
        )
        objective: Objective = Field("hinge", description=DESCRIPTION)
        feature_matching_weight: float = Field(
            0.0,
            ge=0,
            description="Weight of weak feature matching, as in hinge-gan: the distance of swap and ground truth in "
            "the input features of each discriminator's last layer.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.trunk = EfficientNetLite0()
        self.projection = RandomProjection(options.width)
        self.discriminators = nn.ModuleList()
        for level, channels in enumerate(self.projection.channels):
            wider = [options.width * 2**power for power in range(level, LEVELS)]  # to the same side at each level
            self.discriminators.append(FeatureDiscriminator([channels, *wider]))

    def load(self) -> None:
        """Load the trunk's weights. Raises UserError if their package is not installed or its file was changed."""
        self.trunk.load()

    def features(self, images: Tensor, draw: Draw | None) -> list[Tensor]:
        """Return the projected features (B, channels[k], 2 H_k, 2 W_k), in float32, of images (B, 3, S, S).

        Depthwise convolutions are no faster in bfloat16 on CPUs.
        """
        with without_autocast(images.device):
            images = images.float() if draw is None else diff_augment(images.float(), draw)
            mixed: list[Tensor] = self.projection(self.trunk(scaled_to(images, self.options.side)))
            return mixed

    def discriminate(self, features: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return for every level the features before the last layer (B, C, H, W) and the logits (B, 1, H, W)."""
        return [net(h) for net, h in zip(self.discriminators, features, strict=True)]

    def draw(self, images: Tensor) -> Draw | None:
        """Return the parameters of a random augmentation of images (B, 3, S, S); None without the option `augment`."""
        return Draw.random(images) if self.options.augment else None

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the generator's loss, a scalar, averaged over levels."""
        draw, objective = self.draw(output.image), self.options.objective
        swaps = self.discriminate(self.features(output.image, draw))
        weight = self.options.feature_matching_weight
        if objective == "hinge" and weight == 0:
            return torch.stack([generator_objective(objective, logits, None) for _, logits in swaps]).mean()
        with torch.no_grad():
            targets = self.discriminate(self.features(batch.ground_truth, draw))
        terms = []
        for (swap, fake), (target, real) in zip(swaps, targets, strict=True):
            terms.append(generator_objective(objective, fake, real) + weight * (swap - target).abs().mean())
        return torch.stack(terms).mean()

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Return the discriminators' loss, a scalar, averaged over levels."""
        draw = self.draw(output.image)
        with torch.no_grad():
            truth, swap = (self.features(images, draw) for images in (batch.ground_truth, output.image))
        pairs = zip(self.discriminate(swap), self.discriminate(truth), strict=True)
        terms = [discriminator_objective(self.options.objective, fake, real) for (_, fake), (_, real) in pairs]
        return torch.stack(terms).mean()
