"""AEI-Net, the first stage of FaceShifter: attribute encoder and AAD generator.

Li, Bao, Yang, Chen, Wen, "FaceShifter: Towards High Fidelity And Occlusion Aware Face Swapping", arXiv:1912.13457,
section 3.1. Where the paper is silent, the layers follow what the public re-implementations agree on.

At 256 px there are eight levels, from 2x2 to 256x256, and at width 1 with an embedding of 512 numbers the two networks
have 184.3 M parameters. Smaller crops leave coarse levels out: layers are counted from the fine end.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fsf_faceshifter.aad import Integration, joined
from fsf_faceshifter.blocks import down_block, up_block
from fsframework.core.components import AttributeEncoder, ComponentOptions, Generator
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d, convolve, scaled
from fsframework.ops.instance_norm import instance_norm
from fsframework.ops.precision import without_autocast
from fsframework.ops.triton import launch
from fsframework.ops.upsample import upsample2x

PLACES = ("in", "mid", "out")  # of the AAD layers on a block's main path
EXACT = 2  # side of maps up to which the generator computes in float32 under autocast, too
RECOMPUTED = 2  # blocks at the end that may be: the others hold a quarter of the numbers and do half of the work


def level_count(size: int) -> int:
    """How many levels a crop of this side has: 8 at 256 px. Raises ValueError unless it is a power of two from 16."""
    levels = size.bit_length() - 1
    if size != 2**levels or levels < 4:
        raise ValueError(f"AEI-Net takes crops whose side is a power of two from 16, not {size}")
    return levels


class AeiAttributes(AttributeEncoder):
    """AEI-Net's multi-level attribute encoder, a U-Net whose decoder maps are the attributes z_att^k (section 3.1).

    The last level of the paper is the one before it, upsampled twice without weights. Here it is that map itself: the
    generator upsamples what it makes of it, which is the same numbers for a quarter of the arithmetic. No attribute is
    then finer than half the crop's side, which a crop of 256 px does not miss; for small crops there is `full`.
    """

    name = "aei-attributes"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels; 1 is the paper's.")
        max_channels: int = Field(1024, ge=8, description="Most channels that a level has, before width is applied.")
        full_resolution: bool = Field(
            False,
            description="Whether the U-Net goes on to the crop's own side, with a skip connection from the picture, "
            "instead of ending at half of it, as in the paper.",
        )
        skips: Literal["cat", "add"] = Field(
            "cat", description="Whether skip connections are concatenated, or added as in LinkNet (offered by GHOST)."
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        downs = level_count(size) - 1
        down = [scaled(min(32 * 2**k, options.max_channels), options.width) for k in range(downs)]
        self.down = nn.ModuleList(down_block(i, o) for i, o in zip([3, *down], down, strict=False))
        up, self.channels, inputs = [], [down[-1]], down[-1]
        factor = 2 if options.skips == "cat" else 1
        for skip in reversed(down[:-1]):
            up.append(up_block(inputs, skip))
            inputs = factor * skip
            self.channels.append(inputs)
        if options.full_resolution:
            finest = scaled(32, options.width)
            self.finest = nn.Sequential(Conv2d(3, finest, 3, padding=1), nn.LeakyReLU(0.1))
            up.append(up_block(inputs, finest))
            inputs = factor * finest
        self.up = nn.ModuleList(up)
        self.channels.append(inputs)

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Maps (B, channels[k], 2^(k+1), 2^(k+1)); the last one, unless `full`, has the side of the one before it."""
        h = faces.image
        skips = [self.finest(h)] if self.options.full_resolution else []
        for down in self.down:
            h = down(h)  # (B, C, S/2, S/2)
            skips.append(h)
        z_att = [skips.pop()]
        for up in self.up:
            fine, skip = up(z_att[-1]), skips.pop()
            z_att.append(torch.cat([fine, skip], dim=1) if self.options.skips == "cat" else fine + skip)
        return z_att if self.options.full_resolution else [*z_att, z_att[-1]]


class AadBlock(nn.Module):
    """AAD ResBlk (figure 3c): AAD layers with their convolutions, another one on the shortcut if the width changes.

    One weight makes gamma_att and beta_att of all layers, since they share z_att. The first layer and the shortcut's
    see the same h, which is normalised once.

    Parameters
    ----------
    inputs, outputs, att:
        Channels before and after the block, and of z_att.
    layers:
        AAD layers on the main path.
    integration:
        How attributes and identity are joined: see `fsf_faceshifter.aad.joined`.
    last:
        Whether its output is the picture; otherwise it is normalised.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        att: int,
        layers: int = 2,
        integration: Integration = "aad",
        last: bool = True,
    ) -> None:
        super().__init__()
        shortcut = inputs != outputs
        self.layers, self.integration = layers, integration
        self.affine_layers = layers + shortcut
        self.affine_channels = 2 * inputs * self.affine_layers  # gamma and beta of each layer
        self.att = nn.Conv2d(att, self.affine_channels, 1)
        shown = 2 * inputs if integration == "cat" else inputs  # channels that a convolution sees
        for number, place in enumerate(PLACES[:layers]):
            if integration == "aad":
                self.add_module(f"mask_{place}", nn.Conv2d(inputs, 1 + (shortcut and number == 0), 1))
            wide = outputs if number + 1 == layers else inputs
            normed = not last or number + 1 < layers
            self.add_module(f"conv_{place}", Conv2d(shown, wide, 3, padding=1, normed=normed))
        self.shortcut = Conv2d(shown, outputs, 3, padding=1, normed=not last) if shortcut else None

    def forward(self, h: Tensor, z_att: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output (B, outputs, H, W) and its masks M (B, affine layers or none, H, W).

        `identity` holds gamma_id and beta_id of each layer, (B, affine_channels, 1, 1).
        """
        side = h.shape[-1]
        kernels = self.integration == "aad" and z_att.shape[-1] in (side, side // 2) and launch.usable(h, z_att)
        joins = self._joined_by_kernels if kernels else self._joined
        att = self._bare_affine(z_att) if kernels else self.attribute_affine(z_att)
        identities = identity.to(att[0].dtype).chunk(self.affine_layers, dim=1)
        a, masks = h, []
        for number, place in enumerate(PLACES[: self.layers]):
            seeing = [number] if number > 0 or self.shortcut is None else [0, self.layers]  # layers that see this map
            shown, mask = joins(a, place, seeing, att, identities)
            masks.append(mask)
            a = self.get_submodule(f"conv_{place}")(shown[0])
            if self.shortcut is not None and number == 0:
                h = self.shortcut(shown[1])
        return a + h, torch.cat(masks, dim=1)

    def attribute_affine(self, z_att: Tensor) -> list[Tensor]:
        """gamma_att and beta_att of each layer at the side of z_att, (B, 2 inputs, H, W)."""
        rows = zip(self.att.weight.chunk(self.affine_layers), self._att_biases(), strict=True)
        return [convolve(z_att, weight, bias) for weight, bias in rows]

    def _bare_affine(self, z_att: Tensor) -> list[Tensor]:
        """The same before the biases are added: kernels add them."""
        return [F.conv2d(z_att, weight) for weight in self.att.weight.chunk(self.affine_layers)]

    def _att_biases(self) -> tuple[Tensor, ...]:
        return cast(Tensor, self.att.bias).chunk(self.affine_layers)

    def _joined(
        self, h: Tensor, place: str, layers: list[int], att: Sequence[Tensor], identities: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """What the convolutions of one or two layers see, and M of each, (B, layers, H, W), where there are masks."""
        normal = instance_norm(h)
        mask = h.new_empty(len(h), 0, *h.shape[2:])
        if self.integration == "aad":
            mask = torch.sigmoid(self.get_submodule(f"mask_{place}")(normal))
        made = [
            joined(self.integration, normal.to(att[k].dtype), att[k], identities[k], mask[:, column : column + 1])
            for column, k in enumerate(layers)
        ]
        return made, mask

    def _joined_by_kernels(
        self, h: Tensor, place: str, layers: list[int], att: Sequence[Tensor], identities: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The same in one visit to memory."""
        from fsf_faceshifter.aad_triton import aad_layers

        atts, biases, ids = ([each[k] for k in layers] for each in (att, self._att_biases(), identities))
        return aad_layers(h, atts, biases, ids, *self.get_submodule(f"mask_{place}").parameters())


class AadGenerator(Generator):
    """AEI-Net's generator, Adaptive Attentional Denormalization (section 3.1): z_id steered by z_att, level by level.

    Departures: the paper does not say how weights start; here gammas start around 1, and the identity branch as strong
    as the attribute branch (public code starts it near 0, and the network then learns to copy the target).

    Under autocast, too, the first level, whose instance norms see 4 pixels and enlarge what bfloat16 rounds, and all
    that is made of z_id alone are computed in float32. That is 0.3 % of the arithmetic at 256 px, and with it a swap in
    bfloat16 is 42 dB from one in float32 instead of 36 (weights at random; at 64 px 47 instead of 39).
    """

    name = "aad-generator"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels; 1 is the paper's.")
        max_channels: int = Field(
            1024,
            ge=8,
            description="Most channels that a level has, before width is applied. The coarsest levels hold nine tenths "
            "of the weights and make little of the picture.",
        )
        integration: Integration = Field(
            "aad",
            description="How attributes and identity are joined in each layer. aad: by a mask (equation 6). add, cat: "
            "the paper's ablations, the sum or both beside each other. spade: attributes alone, identity only at the "
            "start (arXiv:1903.07291). adain: no maps, the mean of the attributes' affine and the identity's "
            "(arXiv:1703.06868).",
        )
        layers: Literal[1, 2, 3] = Field(2, description="AAD layers of a block; 2 is the paper's, GHOST offers all.")
        att_levels: int | None = Field(
            None,
            ge=1,
            description="Attribute maps to use, from the coarsest on; finer levels get the last of them again. 3 is "
            "the paper's ablation Compressed; null: all.",
        )
        activation_checkpointing: bool = Field(
            False,
            description="Train in less memory: inner values of the last two blocks, most of all, are computed again "
            "when gradients need them.",
        )

    options: Options
    affine: nn.Linear  # not with spade, whose layers do not see the identity

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        levels = level_count(size)
        if len(att_channels) != levels:
            raise ValueError(f"{self.name} needs {levels} attribute maps at {size} px, not {len(att_channels)}")
        channels = [min(c, options.max_channels) for c in [1024] * levels + [512, 256, 128, 64]]
        widths = [*(scaled(c, options.width) for c in channels), 3][-levels - 1 :]  # before and after each block
        self.start = nn.ConvTranspose2d(id_dim, widths[0], 2)
        self.att_levels = min(options.att_levels or levels, levels)
        used = self._used(att_channels)
        blocks = [
            AadBlock(i, o, c, options.layers, options.integration, last=k + 1 == levels)
            for k, (i, o, c) in enumerate(zip(widths[:-1], widths[1:], used, strict=True))
        ]
        self.blocks = nn.ModuleList(blocks)
        self.block_channels = [block.affine_channels for block in blocks]
        if options.integration != "spade":
            self.affine = nn.Linear(id_dim, sum(self.block_channels))
        self._reset(blocks)

    def _used(self, levels: list[Any]) -> list[Any]:
        """What each level is shown: its own, or the last that is used."""
        return [levels[min(k, self.att_levels - 1)] for k in range(len(levels))]

    def _reset(self, blocks: list[AadBlock]) -> None:
        """Start values of gammas and betas. Embeddings have unit length, so the deviation is that of gamma itself."""
        biases = [(block, cast(Tensor, block.att.bias).data) for block in blocks]
        if self.options.integration != "spade":
            nn.init.normal_(self.affine.weight, std=0.5)
            biases += zip(blocks, self.affine.bias.data.split(self.block_channels), strict=True)
        for block, bias in biases:
            for layer in bias.zero_().chunk(block.affine_layers):
                layer.chunk(2)[0].fill_(1.0)  # gamma

    def identity_affine(self, z_id: Tensor) -> list[Tensor]:
        """gamma_id and beta_id of every block, (B, C, 1, 1) each. They depend on the source alone."""
        if self.options.integration == "spade":
            return [z_id.new_zeros(len(z_id), channels, 1, 1) for channels in self.block_channels]
        return list(self.affine(z_id)[..., None, None].split(self.block_channels, dim=1))

    def _started(self, z_id: Tensor) -> Tensor:
        """`start` of one pixel, (B, C, 2, 2), as the matrix product that it is.

        As a convolution, torch's compiler and cuDNN disagree on how its gradient lies in memory.
        """
        made = z_id @ self.start.weight.flatten(1)
        return made.unflatten(1, (-1, 2, 2)) + cast(Tensor, self.start.bias)[:, None, None]

    def paint(self, z_id: Tensor, z_att: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The image (B, 3, S, S) and the masks of each block (B, layers, H_k, W_k)."""
        with without_autocast(z_id.device):
            z_id = _single(z_id)
            h, identities = self._started(z_id), self.identity_affine(z_id)
        masks = []
        for k, level in enumerate(zip(self.blocks, self._used(z_att), identities, strict=True)):
            if k > 0:
                h = upsample2x(h)
            if self.options.activation_checkpointing and k >= len(self.blocks) - RECOMPUTED and torch.is_grad_enabled():
                h, mask = checkpoint(_painted, h, *level, use_reentrant=False)
            else:
                h, mask = _painted(h, *level)
            masks.append(mask)
        return torch.tanh(_single(h)), masks

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """The swap (B, 3, S, S) in [-1, 1]."""
        return self.paint(z_id, z_att)[0]

    def maps(self, z_id: Tensor, z_att: list[Tensor]) -> list[Tensor]:
        """M^k of each level (B, 1, H_k, W_k), the mean over a block's layers: 1 is identity (figure 8); `aad` alone."""
        if self.options.integration != "aad":
            return []
        return [masks.mean(dim=1, keepdim=True) for masks in self.paint(z_id, z_att)[1]]


def _painted(h: Tensor, block: nn.Module, z_att: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    """What a block makes of h, in float32 where maps are small."""
    if h.shape[-1] > EXACT:
        return cast(tuple[Tensor, Tensor], block(h, z_att, identity))
    with without_autocast(h.device):
        return cast(tuple[Tensor, Tensor], block(_single(h), _single(z_att), identity))


def _single(values: Tensor) -> Tensor:
    """In float32, unless they are more exact already."""
    return values if values.dtype == torch.float64 else values.float()
