"""MobileFaceNet, a small face recogniser (Chen, Liu, Gao, Han, arXiv:1804.07573, table 1).

No weights are included. Any state dict with the usual public names is supported, for inputs of 112x96 pixels.
The default `match_threshold` is that of weights trained with ArcFace on CASIA-WebFace: the cosine with a false-accept
rate of 1e-3 over 795 820 pairs of 586 people of Labeled Faces in the Wild. The true-accept rate is then 94.1 %
(`fsf bench verification --set "judge={use: mobilefacenet, weights: FILE}" --set "data={use: face-folder, root: LFW}"
--set split=all`, commit c30350f).
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_identity.fixed_crop import FixedCrop, box_to
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.types import FaceBatch
from fsframework.ops.precision import without_autocast
from fsframework.utils.weights import fill_published, fold_norms, load_state

HEIGHT, WIDTH = 112, 96  # input size in pixels
POINTS = [(30.3, 51.7), (65.5, 51.5), (48.0, 71.7), (33.5, 92.4), (62.7, 92.2)]  # the five landmarks in the input
MATCH_THRESHOLD = 0.398
BOTTLENECKS = [  # expansion factor, channels, repetitions, stride of the first
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
]


class Unit(nn.Sequential):
    """Convolution, batch norm and, unless `linear`, PReLU."""

    def __init__(
        self,
        before: int,
        width: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=nn.Conv2d(before, width, kernel, stride, padding, groups=groups, bias=False),
            bn=nn.BatchNorm2d(width),
        )
        if not linear:
            layers["prelu"] = nn.PReLU(width)
        super().__init__(layers)


class Bottleneck(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise 3x3 convolution, 1x1 projection, shortcut where shapes match."""

    def __init__(self, before: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.shortcut = stride == 1 and before == width
        self.conv = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileFaceNet(IdentityEncoder):
    """MobileFaceNet with user-supplied weights; 128-d unit embeddings of the image plus its mirror image."""

    name = "mobilefacenet"
    traceable = True
    dim = 128

    class Options(ComponentOptions):
        weights: Path = Field(description="State dict, .pt, .pth or .safetensors, at top level or as net_state_dict.")
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )
        match_threshold: float = Field(
            MATCH_THRESHOLD,
            gt=-1,
            lt=1,
            description="Cosine from which two faces match, as `fsf bench verification` prints it for these weights.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.match_threshold = options.match_threshold
        self.crop = FixedCrop(box_to(POINTS, landmarks=range(5), width=WIDTH), (HEIGHT, WIDTH))
        self.conv1 = Unit(3, 64, 3, stride=2, padding=1)
        self.dw_conv1 = Unit(64, 64, 3, padding=1, groups=64)
        self.blocks = nn.Sequential(*bottlenecks(Bottleneck, 64))
        self.conv2 = Unit(128, 512, 1)
        self.linear7 = Unit(512, 512, (7, 6), groups=512, linear=True)
        self.linear1 = Unit(512, self.dim, 1, linear=True)
        self.requires_grad_(False)
        self.eval()

    def load(self) -> None:
        """Load the weights, and fold batch norms into the convolutions before them.

        Raises
        ------
        UserError
            The file cannot be read, has another hash, or belongs to another network.
        """
        path = self.options.weights
        state = load_state(path, self.options.sha256, below="net_state_dict")
        fill_published(self, state, f"{path}: is no MobileFaceNet for 112x96 pixels")
        fold_norms(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return unit embeddings (B, 128), in float32 even under autocast."""
        x = self.crop(faces.image) * (127.5 / 128)  # (B, 3, 112, 96); training inputs were (0..255 - 127.5) / 128
        x = torch.cat([x, x.flip(3)])
        x = self.dw_conv1(self.conv1(x))  # (2B, 64, 56, 48)
        x = self.conv2(self.blocks(x))  # (2B, 512, 7, 6)
        with without_autocast(x.device):
            x = self.linear1(self.linear7(x.float())).flatten(1)  # (2B, 128)
            image, mirror = x.chunk(2)
            return F.normalize(image + mirror, dim=1)


def bottlenecks(block: Callable[[int, int, int, int], nn.Module], before: int) -> list[nn.Module]:
    """Return the blocks of table 1, built by `block(inputs, outputs, stride, expansion)`; `before` is the input's."""
    blocks = []
    for expansion, width, count, stride in BOTTLENECKS:
        for repetition in range(count):
            blocks.append(block(before, width, stride if repetition == 0 else 1, expansion))
            before = width
    return blocks
