"""MobileFaceNet, a small face recogniser (Chen, Liu, Gao, Han, arXiv:1804.07573, table 1).

No weights are shipped; any state dict with the usual public names is read, for input of 112x96 pixels.
The default `match_threshold` is that of weights trained with ArcFace on CASIA-WebFace: the cosine with a false-accept
rate of 1e-3 over 795 820 pairs of 586 people of Labeled Faces in the Wild, where 94.1 % of pairs of one person match
(`fsf bench verification --set "judge={use: mobilefacenet, weights: FILE}" --set "data={use: face-folder, root: LFW}"
--set split=all`, commit c30350f).
"""

from collections import OrderedDict
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

HEIGHT, WIDTH = 112, 96  # of the input, in pixels
POINTS = [(30.3, 51.7), (65.5, 51.5), (48.0, 71.7), (33.5, 92.4), (62.7, 92.2)]  # the five landmarks in it
MATCH_THRESHOLD = 0.398
BOTTLENECKS = [  # expansion, width, how many, stride of the first
    (2, 64, 5, 2),
    (4, 128, 1, 2),
    (2, 128, 6, 1),
    (4, 128, 1, 2),
    (2, 128, 2, 1),
]


class Unit(nn.Sequential):
    """A convolution, batch norm and, unless it is linear, PReLU."""

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
    """Expand, filter each channel by itself, project; plus the input where the shapes allow."""

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
    """MobileFaceNet with weights of your own; 128 numbers of unit length, of the image and its mirror."""

    name = "mobilefacenet"
    traceable = True
    dim = 128

    class Options(ComponentOptions):
        weights: Path = Field(description="Its state dict, .pt, .pth or .safetensors, at the top or as net_state_dict.")
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Hash that the file of weights must have."
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
        self.blocks = nn.Sequential(*_bottlenecks(64))
        self.conv2 = Unit(128, 512, 1)
        self.linear7 = Unit(512, 512, (7, 6), groups=512, linear=True)
        self.linear1 = Unit(512, self.dim, 1, linear=True)
        self.requires_grad_(False)
        self.eval()

    def load(self) -> None:
        """Read the weights, and make batch norms part of the convolutions before them.

        Raises
        ------
        UserError
            The file cannot be read, has another hash, or is not of this network.
        """
        path = self.options.weights
        state = load_state(path, self.options.sha256, below="net_state_dict")
        fill_published(self, state, f"{path}: is no MobileFaceNet for 112x96 pixels")
        fold_norms(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Embeddings (B, 128) of unit length; float32 also under autocast."""
        x = self.crop(faces.image) * (127.5 / 128)  # (B, 3, 112, 96), trained on (0..255 - 127.5) / 128
        x = torch.cat([x, x.flip(3)])
        x = self.dw_conv1(self.conv1(x))  # (2B, 64, 56, 48)
        x = self.conv2(self.blocks(x))  # (2B, 512, 7, 6)
        with without_autocast(x.device):
            x = self.linear1(self.linear7(x.float())).flatten(1)  # (2B, 128)
            image, mirror = x.chunk(2)
            return F.normalize(image + mirror, dim=1)


def _bottlenecks(before: int) -> list[Bottleneck]:
    blocks = []
    for expansion, width, count, stride in BOTTLENECKS:
        for place in range(count):
            blocks.append(Bottleneck(before, width, stride if place == 0 else 1, expansion))
            before = width
    return blocks
