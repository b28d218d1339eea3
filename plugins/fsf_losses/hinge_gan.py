"""Adversarial loss with a multi-scale discriminator.

Hinge form: Lim and Ye, arXiv:1705.02894; several scales: Wang et al. (pix2pixHD), arXiv:1711.11585, section 3.2;
patches: Isola et al., arXiv:1611.07004, section 3.2. Used by FaceShifter (arXiv:1912.13457, section 3.1). Relativistic
form and gradient penalties: R3GAN (Huang et al., arXiv:2501.05441, section 2).
"""

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_losses.objectives import DESCRIPTION, Objective, discriminator_objective, generator_objective
from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.ops.conv import Conv2d
from fsframework.ops.instance_norm import instance_norm
from fsframework.ops.triton import launch

STEP = 0.01  # standard deviation of the noise of the gradient penalties, for images in [-1, 1]


class InstanceNorm(nn.GroupNorm):
    """Instance norm with a learned scale and shift: `nn.GroupNorm` with one channel a group."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised maps (B, C, H, W)."""
        if input.dtype != torch.bfloat16 and not launch.usable(input):
            return super().forward(input)
        normalized = instance_norm(input)
        scale, shift = (parameter.to(normalized.dtype)[:, None, None] for parameter in (self.weight, self.bias))
        return torch.addcmul(shift, normalized, scale)


class PatchDiscriminator(nn.Sequential):
    """PatchGAN discriminator: 4x4 convolutions of stride 2 to logits (B, 1, S / 2^layers, S / 2^layers)."""

    def __init__(self, width: int, layers: int) -> None:
        blocks: list[nn.Module] = [Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(layers - 1):
            wider = min(2 * width, 512)
            blocks += [
                Conv2d(width, wider, 4, stride=2, padding=1, normed=True),
                InstanceNorm(wider, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        super().__init__(*blocks, Conv2d(width, 1, 3, padding=1))


class HingeGan(Loss):
    """Hinge adversarial loss with multi-scale PatchGAN discriminators.

    The generator's loss is -D(Y), as in Lim and Ye. Some re-implementations use relu(1 - D(Y)), whose gradient vanishes
    where the discriminator is already fooled. Real images are the ground truth: targets before augmentation.

    The gradient penalties R1 and R2 are approximated by finite differences, as in APT (Lin et al., arXiv:2501.08316):
    the squared change of the logits under noise of standard deviation 0.01, divided by its variance. R3GAN
    differentiates twice, which the C kernels do not support. For patches, the expected value is the mean over logits of
    the squared norm of the gradient. It was 1 to 8 % below the exact value in float32, and within 6 % in bfloat16.
    """

    name = "hinge-gan"

    class Options(Loss.Options):
        width: int = Field(64, ge=8, description="Channels after the discriminator's first layer.")
        layers: int = Field(3, ge=1, le=6, description="Layers of stride 2 at each scale.")
        scales: int = Field(3, ge=1, le=4, description="Number of scales; each halves the side of the previous one.")
        feature_matching_weight: float = Field(
            0.0,
            ge=0,
            description="Weight of weak feature matching, after SimSwap (Chen et al., arXiv:2106.06340), to preserve "
            "attributes: the distance of swap and target in the input features of each discriminator's last layer. "
            "SimSwap matches the last few layers.",
        )
        objective: Objective = Field("hinge", description=DESCRIPTION)
        r1: float = Field(
            0.0,
            ge=0,
            description="Weight of the gradient penalty on real images: half the squared gradient of a logit with "
            "respect to the image.",
        )
        r2: float = Field(0.0, ge=0, description="Weight of the gradient penalty on swaps; R3GAN sets it to `r1`.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        discriminators = (PatchDiscriminator(options.width, options.layers) for _ in range(options.scales))
        self.discriminators = nn.ModuleList(discriminators)

    def discriminate(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return for every scale the last layer's input features (B, C, H_k, W_k) and its logits (B, 1, H_k, W_k)."""
        scales = []
        for discriminator in self.discriminators:
            *body, last = cast(PatchDiscriminator, discriminator)
            features = image
            for layer in body:
                features = layer(features)
            scales.append((features, last(features).float()))
            image = F.avg_pool2d(image, 2)
        return scales

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        """Return the generator's loss, a scalar, averaged over scales."""
        objective, weight = self.options.objective, self.options.feature_matching_weight
        swaps = self.discriminate(output.image)
        if objective == "hinge" and weight == 0:
            return torch.stack([generator_objective(objective, fake, None) for _, fake in swaps]).mean()
        with torch.no_grad():
            targets = self.discriminate(batch.ground_truth)
        pairs = list(zip(swaps, targets, strict=True))
        term = torch.stack([generator_objective(objective, fake, real) for (_, fake), (_, real) in pairs]).mean()
        if weight == 0:
            return term
        distances = [(swap.float() - target.float()).abs().mean() for (swap, _), (target, _) in pairs]
        return term + weight * torch.stack(distances).mean()

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Return the discriminators' loss, a scalar, averaged over scales.

        It is relu(1 - D(X_t)) + relu(1 + D(Y)), or softplus(D(Y) - D(X_t)), and the gradient penalties.
        """
        images = {"real": batch.ground_truth, "fake": output.image}
        weights = {"real": self.options.r1, "fake": self.options.r2}
        penalised = [kind for kind, weight in weights.items() if weight > 0]
        noisy = [images[kind] + STEP * torch.randn_like(images[kind]) for kind in penalised]
        terms = []
        for _, logits in self.discriminate(torch.cat([*images.values(), *noisy])):
            real, fake, *moved = logits.split(len(output.image))
            term = discriminator_objective(self.options.objective, fake, real)
            for kind, changed in zip(penalised, moved, strict=True):
                slope = (changed - (real if kind == "real" else fake)) / STEP
                term = term + 0.5 * weights[kind] * slope.square().mean()
            terms.append(term)
        return torch.stack(terms).mean()
