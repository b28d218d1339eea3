"""IResNet, the residual networks of ArcFace's and CosFace's published weights (insightface's "iresnet").

Deng et al., "ArcFace", arXiv:1801.07698, section 3.1; layers and names as in insightface's public PyTorch code. No
weights are included.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_identity.fixed_crop import FixedCrop, box_to
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.types import FaceBatch
from fsframework.ops.precision import without_autocast
from fsframework.utils.weights import fill_published, load_state

SIDE = 112  # input side in pixels
POINTS = [
    (38.29, 51.70),
    (73.53, 51.50),
    (56.03, 71.74),
    (41.55, 92.37),
    (70.73, 92.20),
]  # the five landmarks in the input
WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}  # in each of the four stages
DIM = 512


class Block(nn.Module):
    """Residual block BN-Conv-BN-PReLU-Conv-BN without an activation after the sum (ArcFace, section 3.1)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = shortcut if changes else None

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return residual + (x if self.downsample is None else self.downsample(x))


class IResNet(IdentityEncoder):
    """ArcFace's and CosFace's residual network of 18, 34, 50 or 100 layers (insightface); 512-d unit embeddings.

    It loads published state dicts of ArcFace, CosFace and similar methods, and the weights of a run of
    recipes/recogniser.yaml. It was tested without published weights: names, shapes and numbers of parameters, and
    training by a recipe.
    """

    name = "iresnet"
    traceable = True
    dim = DIM
    trainable = True

    class Options(ComponentOptions):
        layers: Literal[18, 34, 50, 100] = Field(50, description="Number of layers.")
        weights: Path | None = Field(
            None, description="State dict, .pt, .pth or .safetensors; null: random initialisation, for training."
        )
        sha256: str | None = Field(
            None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )
        match_threshold: float | None = Field(
            None,
            gt=-1,
            lt=1,
            description="Cosine from which two faces match, as `fsf bench verification` prints it for these weights; "
            "null: not measured, and features that compare people reject this encoder.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.match_threshold = options.match_threshold
        self.crop = FixedCrop(box_to(POINTS, landmarks=range(5), width=SIDE), (SIDE, SIDE))
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        before = WIDTHS[0]
        for number, (width, count) in enumerate(zip(WIDTHS, BLOCKS[options.layers], strict=True), start=1):
            first, *rest = [Block(before, width, 2), *(Block(width, width, 1) for _ in range(count - 1))]
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before * (SIDE // 16) ** 2, DIM)
        self.features = nn.BatchNorm1d(DIM)
        nn.init.ones_(self.features.weight)
        self.features.weight.requires_grad_(False)  # as in ArcFace: the scale is fixed
        self.eval()

    def load(self) -> None:
        """Load the weights, if the option `weights` is set.

        Raises
        ------
        UserError
            The file cannot be read, has another hash, or belongs to another network.
        """
        path = self.options.weights
        if path is None:
            return
        state = load_state(path, self.options.sha256, below="state_dict")
        state = {name.removeprefix("identity."): value for name, value in state.items()}
        fill_published(self, state, f"{path}: is no iresnet of {self.options.layers} layers")
        self.requires_grad_(False)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return unit embeddings (B, 512), in float32 even under autocast."""
        x = self.prelu(self.bn1(self.conv1(self.crop(faces.image))))  # (B, 64, 112, 112) of values in [-1, 1]
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        x = self.bn2(x).flatten(1)  # (B, 512 * 7 * 7)
        with without_autocast(x.device):
            return F.normalize(self.features(self.fc(x.float())), dim=1)
