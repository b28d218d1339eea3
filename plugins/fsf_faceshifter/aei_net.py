"""AEI-Net, the first stage of FaceShifter: attribute encoder and AAD generator.

Li, Bao, Yang, Chen, Wen, "FaceShifter: Towards High Fidelity And Occlusion Aware Face Swapping", arXiv:1912.13457,
section 3.1. Layers that the paper does not specify follow the public re-implementations.

At 256 px there are eight levels, from 2x2 to 256x256. At width 1 with a 512-dimensional embedding, the two networks
have 184.3 M parameters. Smaller crops omit the coarsest levels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fsf_faceshifter.aad import Integration, joined
from fsf_faceshifter.blocks import channels_to_pixels, down_block, over_sub_pixels, pixels_to_channels, up_block
from fsf_faceshifter.inner_blur import blur_inner_face
from fsframework.core.components import AttributeEncoder, ComponentOptions, Generator
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d, convolve, scaled
from fsframework.ops.instance_norm import instance_norm
from fsframework.ops.precision import without_autocast
from fsframework.ops.triton import launch
from fsframework.ops.upsample import upsample2x

LAYER_NAMES = ("in", "mid", "out")  # suffixes of the submodules of a block's AAD layers, in order
FLOAT32_SIDE = 2  # largest side of feature maps that are computed in float32 even under autocast
MASK_BIAS = 3.0  # of the mask before the sigmoid, at the start: 0.95 everywhere
RECOMPUTED = (
    2  # last blocks, under activation checkpointing: the others cost half but hold a quarter of the activations
)


def level_count(size: int) -> int:
    """Return the number of levels for crops of `size` pixels: 8 at 256 px.

    Raises
    ------
    ValueError
        The size is no power of two, or is below 16.
    """
    levels = size.bit_length() - 1
    if size != 2**levels or levels < 4:
        raise ValueError(f"AEI-Net takes crops whose side is a power of two from 16, not {size}")
    return levels


class AeiAttributes(AttributeEncoder):
    """Multi-level attribute encoder of AEI-Net: a U-Net whose decoder maps are the attributes z_att^k (section 3.1).

    In the paper, the last level is the previous one after 2x upsampling without weights. Here it is the previous map
    itself: the generator upsamples the gammas and betas instead, with equal values at a quarter of the arithmetic.
    Attributes are therefore at most half the crop's resolution. That suffices at 256 px; for small crops, the option
    `full_resolution` adds the finest level.
    """

    name = "aei-attributes"
    traceable = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels; 1 is the paper's.")
        max_channels: int = Field(1024, ge=8, description="Maximum channels of a level, before width is applied.")
        full_resolution: bool = Field(
            False,
            description="Whether the U-Net's decoder reaches the crop's resolution, with a skip connection from the "
            "image. In the paper it ends at half the resolution.",
        )
        skips: Literal["cat", "add"] = Field(
            "cat", description="Concatenate skip connections, or add them as in LinkNet (an option of GHOST)."
        )
        unshuffle: Literal[1, 2] = Field(
            1,
            description="Side of the squares of pixels that become channels at the entry. With 2, the network has the "
            "levels and about the cost of half the side. A stage's `init` may be weights of that size, without it.",
        )
        inner_blur: float = Field(
            0.0,
            ge=0,
            le=0.1,
            description="Standard deviation of a blur of the inner face before the encoder, in units of the crop's "
            "side, so that less of the target's identity passes. It is part of the model, not an augmentation: skip "
            "connections leak the target's identity, and WSC-swap (Ren et al., arXiv:2307.07928) hides the face from "
            "its pixel-level encoder altogether. 0, the paper: none.",
        )

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        downs = level_count(size // options.unshuffle) - 1
        colours = 3 * options.unshuffle**2
        down = [scaled(min(32 * 2**k, options.max_channels), options.width) for k in range(downs)]
        self.down = nn.ModuleList(down_block(i, o) for i, o in zip([colours, *down], down, strict=False))
        up, self.channels, inputs = [], [down[-1]], down[-1]
        factor = 2 if options.skips == "cat" else 1
        for skip in reversed(down[:-1]):
            up.append(up_block(inputs, skip))
            inputs = factor * skip
            self.channels.append(inputs)
        if options.full_resolution:
            finest = scaled(32, options.width)
            self.finest = nn.Sequential(Conv2d(colours, finest, 3, padding=1), nn.LeakyReLU(0.1))
            up.append(up_block(inputs, finest))
            inputs = factor * finest
        self.up = nn.ModuleList(up)
        self.channels.append(inputs)

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return the attribute maps z_att^k (B, channels[k], 2^(k+1), 2^(k+1)), coarse to fine.

        Without `full_resolution`, the last map is the previous one.
        """
        image = faces.image
        if self.options.inner_blur > 0:
            image = blur_inner_face(image, self.options.inner_blur)
        h = pixels_to_channels(image, self.options.unshuffle)
        skips = [self.finest(h)] if self.options.full_resolution else []
        for down in self.down:
            h = down(h)  # (B, C, S/2, S/2)
            skips.append(h)
        z_att = [skips.pop()]
        for up in self.up:
            fine, skip = up(z_att[-1]), skips.pop()
            z_att.append(torch.cat([fine, skip], dim=1) if self.options.skips == "cat" else fine + skip)
        return z_att if self.options.full_resolution else [*z_att, z_att[-1]]

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a network of half the side so that this one starts as that one on halved images."""
        adapted = dict(weights)
        for name in ("down.0.0.weight", "finest.0.weight"):
            if name in adapted and adapted[name].shape[1] == 3:
                adapted[name] = over_sub_pixels(adapted[name], self.options.unshuffle)
        return adapted


class AadBlock(nn.Module):
    """AAD ResBlk (figure 3c): AAD layers, each with a ReLU and a convolution, and a residual connection.

    If the number of channels changes, the shortcut has an AAD layer and a convolution too. One 1x1 convolution computes
    gamma_att and beta_att of all layers, because they share z_att. The first layer and the shortcut share their input
    h, which is normalised once.

    Parameters
    ----------
    inputs, outputs, att:
        Channels before and after the block, and of z_att.
    layers:
        AAD layers on the main path.
    integration:
        How attributes and identity are combined, see `fsf_faceshifter.aad.joined`.
    last:
        Whether the output is the image, which always has a shortcut with layers. Otherwise instance normalisation
        follows the block.
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
        shortcut = last or inputs != outputs
        self.layers, self.integration = layers, integration
        self.affine_layers = layers + shortcut
        self.affine_channels = 2 * inputs * self.affine_layers  # gamma and beta of each layer
        self.att = nn.Conv2d(att, self.affine_channels, 1)
        conv_inputs = 2 * inputs if integration == "cat" else inputs  # input channels of the convolutions
        for number, name in enumerate(LAYER_NAMES[:layers]):
            if integration == "aad":
                self.add_module(f"mask_{name}", nn.Conv2d(inputs, 1 + (shortcut and number == 0), 1))
            wide = outputs if number + 1 == layers else inputs
            normed = not last or number + 1 < layers
            self.add_module(f"conv_{name}", Conv2d(conv_inputs, wide, 3, padding=1, normed=normed))
        self.shortcut = Conv2d(conv_inputs, outputs, 3, padding=1, normed=not last) if shortcut else None

    def forward(self, h: Tensor, z_att: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output (B, outputs, H, W) and the masks M of its layers (B, affine_layers, H, W).

        `h` is (B, inputs, H, W) and `z_att` (B, att, H, W) or of lower resolution. `identity` holds gamma_id and
        beta_id of all layers, (B, affine_channels, 1, 1). Without masks, their second dimension is 0.
        """
        side = h.shape[-1]
        kernels = self.integration == "aad" and z_att.shape[-1] in (side, side // 2) and launch.usable(h, z_att)
        join = self._joined_by_kernels if kernels else self._joined
        att = self._bare_affine(z_att) if kernels else self.attribute_affine(z_att)
        identities = identity.to(att[0].dtype).chunk(self.affine_layers, dim=1)
        main, masks = h, []
        for number, name in enumerate(LAYER_NAMES[: self.layers]):
            sharing = [number] if number > 0 or self.shortcut is None else [0, self.layers]  # layers with this input
            conv_inputs, mask = join(main, name, sharing, att, identities)
            masks.append(mask)
            main = self.get_submodule(f"conv_{name}")(conv_inputs[0])
            if self.shortcut is not None and number == 0:
                h = self.shortcut(conv_inputs[1])
        return main + h, torch.cat(masks, dim=1)

    def attribute_affine(self, z_att: Tensor) -> list[Tensor]:
        """Return gamma_att and beta_att of each layer at the resolution of z_att, (B, 2 inputs, H, W) each."""
        rows = zip(self.att.weight.chunk(self.affine_layers), self._att_biases(), strict=True)
        return [convolve(z_att, weight, bias) for weight, bias in rows]

    def _bare_affine(self, z_att: Tensor) -> list[Tensor]:
        """Return `attribute_affine` without the biases, which the Triton kernels add."""
        return [F.conv2d(z_att, weight) for weight in self.att.weight.chunk(self.affine_layers)]

    def _att_biases(self) -> tuple[Tensor, ...]:
        return cast(Tensor, self.att.bias).chunk(self.affine_layers)

    def _joined(
        self, h: Tensor, name: str, layers: list[int], att: Sequence[Tensor], identities: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the convolution inputs of one or two layers that share `h`, and their masks M (B, layers, H, W).

        Without masks, the second dimension of the masks is 0.
        """
        normal = instance_norm(h)
        mask = h.new_empty(len(h), 0, *h.shape[2:])
        if self.integration == "aad":
            mask = torch.sigmoid(self.get_submodule(f"mask_{name}")(normal))
        conv_inputs = [
            joined(self.integration, normal.to(att[k].dtype), att[k], identities[k], mask[:, column : column + 1])
            for column, k in enumerate(layers)
        ]
        return conv_inputs, mask

    def _joined_by_kernels(
        self, h: Tensor, name: str, layers: list[int], att: Sequence[Tensor], identities: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the same as `_joined`, by Triton kernels in one pass over memory."""
        from fsf_faceshifter.aad_triton import aad_layers

        atts, biases, ids = ([each[k] for k in layers] for each in (att, self._att_biases(), identities))
        return aad_layers(h, atts, biases, ids, *self.get_submodule(f"mask_{name}").parameters())


class AadGenerator(Generator):
    """Generator of AEI-Net (section 3.1): a stack of AAD ResBlks that integrates z_id and z_att level by level.

    The paper does not specify the initialisation. Here gammas start around 1, and the identity branch as strong as the
    attribute branch. Public code starts the identity branch near 0, and the network then learns to copy the target.

    Under autocast, the first level and everything computed from z_id alone stay in float32, 0.3 % of the arithmetic at
    256 px. The first level's instance norms average 4 pixels and amplify the rounding of bfloat16. With float32 there,
    the PSNR of a bfloat16 swap against a float32 swap is 42 dB instead of 36 (random weights; at 64 px 47 instead of
    39).

    With the option `mask` the last block also paints a mask, by which the swapper composes the image with the target,
    as in BlendFace (arXiv:2307.10854). It starts near 1 everywhere, so that training starts from the image without
    it. The loss `mask` must supervise it: other losses alone would shrink it to nothing.
    """

    name = "aad-generator"
    traceable = True
    composes = True

    class Options(ComponentOptions):
        width: float = Field(1.0, gt=0, le=2, description="Factor of the numbers of channels; 1 is the paper's.")
        max_channels: int = Field(
            1024,
            ge=8,
            description="Maximum channels of a level, before width is applied. The coarsest levels hold nine tenths "
            "of the weights and contribute little to the image.",
        )
        integration: Integration = Field(
            "aad",
            description="How each layer combines attributes and identity. aad: blended by a mask (equation 6). add, "
            "cat: sum or concatenation, the paper's ablations. spade: attributes alone, identity only at the first "
            "level (arXiv:1903.07291). adain: one gamma and beta for all pixels, the mean of attributes and identity "
            "(arXiv:1703.06868).",
        )
        cat_levels: int = Field(
            0,
            ge=0,
            description="Number of levels, from the coarsest on, that concatenate attributes and identity (cat) "
            "although the integration is aad: no mask can close there. They have no attention map.",
        )
        layers: Literal[1, 2, 3] = Field(2, description="AAD layers per block; the paper has 2, GHOST offers all.")
        att_levels: int | None = Field(
            None,
            ge=1,
            description="Number of attribute maps to use, from the coarsest on; finer levels reuse the last one. 3 is "
            "the paper's ablation Compressed; null: all.",
        )
        activation_checkpointing: bool = Field(
            False,
            description="Train with less memory: recompute the activations of the last two blocks, which hold most "
            "of them, in the backward pass.",
        )
        mask: bool = Field(
            False,
            description="Whether the last block also paints a mask, by which the image is composed with the target. "
            "Train it with the loss `mask`. A stage's `init` may be weights without it.",
        )
        shuffle: Literal[1, 2] = Field(
            1,
            description="Side of the squares of pixels that the last block paints as channels. With 2, the network "
            "has the levels and about the cost of half the side. A stage's `init` may be weights of that size, "
            "without it.",
        )

    options: Options
    affine: nn.Linear  # absent with spade, whose layers do not use the identity

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        levels = level_count(size // options.shuffle)
        if len(att_channels) != levels:
            remedy = f"; set unshuffle: {options.shuffle} in networks.attributes" if options.shuffle > 1 else ""
            raise ValueError(f"{self.name} needs {levels} attribute maps at {size} px, not {len(att_channels)}{remedy}")
        if options.cat_levels > 0 and options.integration != "aad":
            raise UserError(f"cat_levels: the integration is {options.integration}; leave cat_levels at 0, or use aad")
        if options.cat_levels > levels:
            raise UserError(f"cat_levels: {options.cat_levels} is more than the {levels} levels at {size} px; lower it")
        channels = [min(c, options.max_channels) for c in [1024] * levels + [512, 256, 128, 64]]
        painted = (4 if options.mask else 3) * options.shuffle**2
        widths = [*(scaled(c, options.width) for c in channels), painted][-levels - 1 :]  # before and after each block
        self.start = nn.ConvTranspose2d(id_dim, widths[0], 2)
        self.att_levels = min(options.att_levels or levels, levels)
        used = self._used(att_channels)
        kinds: list[Integration] = ["cat" if k < options.cat_levels else options.integration for k in range(levels)]
        blocks = [
            AadBlock(i, o, c, options.layers, kind, last=k + 1 == levels)
            for k, (i, o, c, kind) in enumerate(zip(widths[:-1], widths[1:], used, kinds, strict=True))
        ]
        self.blocks = nn.ModuleList(blocks)
        self.block_channels = [block.affine_channels for block in blocks]
        if options.integration != "spade":
            self.affine = nn.Linear(id_dim, sum(self.block_channels))
        self._reset(blocks)

    def _used(self, levels: list[Any]) -> list[Any]:
        """Return the attribute map of each level: its own, or the last one in use."""
        return [levels[min(k, self.att_levels - 1)] for k in range(len(levels))]

    def _reset(self, blocks: list[AadBlock]) -> None:
        """Initialise the layers that compute gammas and betas: gammas around 1, betas around 0.

        Embeddings have unit length, so the standard deviation of the weights is that of gamma itself.
        """
        biases = [(block, cast(Tensor, block.att.bias).data) for block in blocks]
        if self.options.integration != "spade":
            nn.init.normal_(self.affine.weight, std=0.5)
            biases += zip(blocks, self.affine.bias.data.split(self.block_channels), strict=True)
        for block, bias in biases:
            for layer in bias.zero_().chunk(block.affine_layers):
                layer.chunk(2)[0].fill_(1.0)  # gamma
        if self.options.mask:
            start = 3 * self.options.shuffle**2
            for rows in self._painting_weights().values():
                rows[start:] = 0.0
            self.state_dict()[f"blocks.{len(blocks) - 1}.shortcut.bias"][start:] = MASK_BIAS

    def _painting_weights(self) -> dict[str, Tensor]:
        """Return the weights whose rows are the painted channels, by name."""
        last = len(self.blocks) - 1
        layers = f"conv_{LAYER_NAMES[self.options.layers - 1]}", "shortcut"
        names = [f"blocks.{last}.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        state = self.state_dict()
        return {name: state[name] for name in names}

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a network without the options `mask` and `shuffle` as this one's.

        A mask starts near 1. With `shuffle`, the pixels of a square start equal.
        """
        adapted = dict(weights)
        pixels = self.options.shuffle**2
        for name, own in self._painting_weights().items():
            if name not in adapted:
                continue
            rows = adapted[name]
            if len(rows) in (3, 4):  # one pixel's channels
                rows = rows.repeat_interleave(pixels, dim=0)
            if len(rows) == 3 * pixels:  # no mask
                rows = torch.cat([rows, own[3 * pixels :].to(rows)])
            adapted[name] = rows
        return adapted

    def identity_affine(self, z_id: Tensor) -> list[Tensor]:
        """Return gamma_id and beta_id of every block, (B, affine_channels, 1, 1) each, which depend on z_id alone."""
        if self.options.integration == "spade":
            return [z_id.new_zeros(len(z_id), channels, 1, 1) for channels in self.block_channels]
        return list(self.affine(z_id)[..., None, None].split(self.block_channels, dim=1))

    def _first_map(self, z_id: Tensor) -> Tensor:
        """Return the first feature map (B, C, 2, 2): the transposed convolution `start` as a matrix product.

        For the convolution, torch's compiler and cuDNN disagree on the memory layout of the gradient.
        """
        product = z_id @ self.start.weight.flatten(1)
        return product.unflatten(1, (-1, 2, 2)) + cast(Tensor, self.start.bias)[:, None, None]

    def paint(self, z_id: Tensor, z_att: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the swap and the masks of each block's layers (B, affine_layers, H_k, W_k).

        The swap is (B, 3, S, S) in [-1, 1]; with the option `mask`, a fourth channel is its mask in [0, 1].
        """
        with without_autocast(z_id.device):
            z_id = _at_least_float32(z_id)
            h, identities = self._first_map(z_id), self.identity_affine(z_id)
        masks = []
        for k, level in enumerate(zip(self.blocks, self._used(z_att), identities, strict=True)):
            if k > 0:
                h = upsample2x(h)
            if self.options.activation_checkpointing and k >= len(self.blocks) - RECOMPUTED and torch.is_grad_enabled():
                h, mask = checkpoint(_run_block, h, *level, use_reentrant=False)
            else:
                h, mask = _run_block(h, *level)
            masks.append(mask)
        h = channels_to_pixels(_at_least_float32(h), self.options.shuffle)
        if self.options.mask:
            return torch.cat([torch.tanh(h[:, :3]), torch.sigmoid(h[:, 3:])], dim=1), masks
        return torch.tanh(h), masks

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return the coarse swap (B, 3, S, S) in [-1, 1], with the option `mask` and its mask (B, 4, S, S)."""
        return self.paint(z_id, z_att)[0]

    def maps(self, z_id: Tensor, z_att: list[Tensor]) -> list[Tensor]:
        """Return M^k of each level (B, 1, H_k, W_k), averaged over a block's layers; 1 is identity (figure 8).

        Integrations other than `aad` have no masks: the list is empty, or lacks the `cat_levels`.
        """
        if self.options.integration != "aad":
            return []
        return [masks.mean(dim=1, keepdim=True) for masks in self.paint(z_id, z_att)[1][self.options.cat_levels :]]


def _run_block(h: Tensor, block: nn.Module, z_att: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output and masks of an AAD ResBlk, computed in float32 where feature maps are small."""
    if h.shape[-1] > FLOAT32_SIDE:
        return cast(tuple[Tensor, Tensor], block(h, z_att, identity))
    with without_autocast(h.device):
        return cast(tuple[Tensor, Tensor], block(_at_least_float32(h), _at_least_float32(z_att), identity))


def _at_least_float32(values: Tensor) -> Tensor:
    """Return the values in float32, or unchanged if they are float64."""
    return values if values.dtype == torch.float64 else values.float()
