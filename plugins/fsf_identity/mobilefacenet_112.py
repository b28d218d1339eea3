"""MobileFaceNet for 112x112 pixels, trained on MS-Celeb-1M (foamliu/MobileFaceNet, Apache-2.0).

No weights are included. The network is that of arXiv:1804.07573 with ReLU6, a separable second layer and a batch norm
at the end. The default `match_threshold` is that of the published weights: the cosine with a false-accept rate of 1e-3
over 795 820 pairs of 586 people of Labeled Faces in the Wild. The true-accept rate is then 98.4 %, the accuracy 99.25 %
(`fsf bench verification --set "judge={use: mobilefacenet-112, weights: FILE}" --set size=128 --set split=all --set
"data={use: face-folder, root: LFW}"`). Adding the mirror image's embedding, at twice the cost, gave 98.6 and 99.25 %.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_identity.fixed_crop import FixedCrop, box_to
from fsf_identity.mobilefacenet import bottlenecks
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d
from fsframework.ops.precision import without_autocast
from fsframework.utils.weights import fill_published, fold_norms, load_state

SIDE = 112  # input side in pixels
POINTS = [(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)]  # the five landmarks in the input
MATCH_THRESHOLD = 0.333
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]


class Depthwise(nn.Conv2d):
    """Depthwise convolution, on CPUs in float32 also under autocast.

    With torch's in bfloat16, forward and backward of the whole network take 1.7 times as long.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve maps (B, C, H, W); return maps (B, C, H', W') of the same dtype."""
        if input.device.type != "cpu":
            return super().forward(input)
        with without_autocast(input.device):
            return super().forward(input.float()).to(input.dtype)


class InvertedResidual(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise 3x3 convolution, 1x1 projection, shortcut where shapes match."""

    def __init__(self, before: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.shortcut = stride == 1 and before == width
        self.conv = nn.Sequential(
            nn.Sequential(Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            nn.Sequential(Depthwise(inner, 3, stride, 1), nn.BatchNorm2d(inner), nn.ReLU6()),
            Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileFaceNet112(IdentityEncoder):
    """MobileFaceNet for 112x112 pixels by foamliu, trained on MS-Celeb-1M, with user-supplied weights; 128-d.

    It is apart from `mobilefacenet`: a method that is trained against one of the two has the other as outside judge.
    """

    name = "mobilefacenet-112"
    traceable = True
    dim = 128

    class Options(ComponentOptions):
        weights: Path = Field(description="State dict of foamliu/MobileFaceNet, .pt, .pth or .safetensors.")
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
    mean: Tensor
    deviation: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.match_threshold = options.match_threshold
        self.crop = FixedCrop(box_to(POINTS, landmarks=range(5), width=SIDE), (SIDE, SIDE))
        # Of images in [-1, 1]; the published ones are of images in [0, 1].
        for name, values in (("mean", [2 * mean - 1 for mean in MEAN]), ("deviation", [2 * std for std in DEVIATION])):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)
        self.conv1 = nn.Sequential(Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU6())
        self.dw_conv = nn.Sequential(
            OrderedDict(
                depthwise=Depthwise(64, 3, padding=1),
                bn1=nn.BatchNorm2d(64),
                relu1=nn.ReLU(),
                pointwise=Conv2d(64, 64, 1, bias=False),
                bn2=nn.BatchNorm2d(64),
                relu2=nn.ReLU(),
            )
        )
        self.features = nn.Sequential(*bottlenecks(InvertedResidual, 64))
        self.conv2 = nn.Sequential(Conv2d(128, 512, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU6())
        self.gdconv = nn.Sequential(OrderedDict(depthwise=Depthwise(512, 7), bn=nn.BatchNorm2d(512)))
        self.head = nn.Sequential(OrderedDict(conv3=nn.Conv2d(512, self.dim, 1), bn=nn.BatchNorm2d(self.dim)))
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
        state = load_state(path, self.options.sha256)
        head = {f"head.{name}": value for name, value in state.items() if name.startswith(("conv3.", "bn."))}
        fill_published(self, state | head, f"{path}: is no MobileFaceNet by foamliu for 112x112 pixels")
        fold_norms(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return unit embeddings (B, 128), in float32 even under autocast."""
        return F.normalize(self.embed(self.crop(faces.image)), dim=1)

    def embed(self, x: Tensor) -> Tensor:
        """Return embeddings (B, 128), float32, of inputs (B, 3, 112, 112) in [-1, 1], not of unit length."""
        x = ((x - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)
        x = self.dw_conv(self.conv1(x))  # (B, 64, 56, 56)
        x = self.conv2(self.features(x))  # (B, 512, 7, 7)
        with without_autocast(x.device):
            return self.head(self.gdconv(x.float())).flatten(1)
