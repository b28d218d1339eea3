"""Head pose and expression by 3DDFA_V2's small network.

Guo et al., "Towards Fast, Accurate and Stable 3D Dense Face Alignment", ECCV 2020, arXiv:2009.09960: a MobileNet of
half width that regresses 62 parameters of a 3D morphable model. No weights are included. State dict and file of means
and standard deviations are those of 3DDFA_V2 (MIT licence).
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fsframework.core.components import ComponentOptions, Estimator
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.faces.align import crop_box
from fsframework.utils.weights import fill, load_state

SIDE = 120  # input side in pixels
POSE, SHAPE, EXPRESSION = 12, 40, 10  # numbers of parameters, in this order; the pose is a 3x4 matrix
NUMBERS = POSE + SHAPE + EXPRESSION
# Left, top and width of the input, in units of the aligned crop's side. The training crop (1.58 times a detector's box)
# would be (0.01, 0.16, 0.97) and exceed the aligned crop. This smaller one is inside. On 200 images of LFW at 64 px it
# reduces the pose difference between an image and its mirror image from 3.1 to 2.4 degrees.
BOX = (0.1, 0.2, 0.8)
LAYERS = [  # name, inputs, outputs, stride
    ("dw2_1", 16, 32, 1),
    ("dw2_2", 32, 64, 2),
    ("dw3_1", 64, 64, 1),
    ("dw3_2", 64, 128, 2),
    ("dw4_1", 128, 128, 1),
    ("dw4_2", 128, 256, 2),
    *[(f"dw5_{number}", 256, 256, 1) for number in range(1, 6)],
    ("dw5_6", 256, 512, 2),
    ("dw6", 512, 512, 1),
]


class Separable(nn.Module):
    """Depthwise separable convolution: 3x3 depthwise, then 1x1 pointwise, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn_dw = nn.BatchNorm2d(inputs)
        self.conv_sep = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn_sep = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn_dw(self.conv_dw(x)))
        return torch.relu(self.bn_sep(self.conv_sep(x)))


class ThreeDDFA(Estimator):
    """Estimator of yaw, pitch and roll in degrees by 3DDFA_V2, with user-supplied weights.

    It regresses a shape from the image, so the nose's shape biases the pitch less than for `pnp`. Signs are those of
    `pnp`; correlations with it are 0.97 in yaw, 0.79 in pitch and 0.71 in roll. Noise on 200 images of LFW at 64 px, as
    L2 distance: 2.4 degrees for an image and its mirror image (`pnp`: 4.2), 1.1 for a shift of one pixel, 1.6 for
    noise of 8 grey levels. Images of different people differ by 19.
    """

    name = "3ddfa"
    quantity = "pose_deg"

    class Options(ComponentOptions):
        weights: Path = Field(description="State dict of 3DDFA_V2's MobileNet 0.5 for 120x120 pixels (.pt or .pth).")
        statistics: Path = Field(
            description="Means and standard deviations of the 62 parameters: an .npz with mean and std."
        )
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )

    options: Options
    mean: Tensor
    std: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layers = nn.ModuleDict({name: Separable(*sizes) for name, *sizes in LAYERS})
        self.fc_param = nn.Linear(512, NUMBERS)
        self.register_buffer("mean", torch.zeros(NUMBERS), persistent=False)
        self.register_buffer("std", torch.ones(NUMBERS), persistent=False)
        self.eval().requires_grad_(False)

    def load(self) -> None:
        """Load the weights and the statistics.

        Raises
        ------
        UserError
            A file cannot be read or is invalid, or the weights have another hash.
        """
        path = self.options.weights
        state = _module_names(load_state(path, self.options.sha256, below="state_dict"))
        counters = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        names = self.state_dict().keys()
        if missing := sorted(names - counters.keys() - state.keys()):
            raise UserError(f"{path}: holds no {missing[0]}; give 3DDFA_V2's MobileNet 0.5 for 120x120 pixels")
        selected = {name: value for name, value in {**counters, **state}.items() if name in names}
        fill(self, selected, f"{path}: is another network than 3DDFA_V2's MobileNet 0.5")
        self.mean.copy_(_statistic(self.options.statistics, "mean"))
        self.std.copy_(_statistic(self.options.statistics, "std"))

    def deviations(self, images: Tensor) -> Tensor:
        """Return parameters (B, 62) of aligned crops (B, 3, S, S) in [-1, 1], standardised by training statistics."""
        x = crop_box(images.float(), BOX, (SIDE, SIDE)).flip(1) * (127.5 / 128)  # BGR, (0..255 - 127.5) / 128
        x = torch.relu(self.bn1(self.conv1(x)))  # (B, 16, 60, 60)
        for layer in self.layers.values():
            x = layer(x)  # finally (B, 512, 4, 4)
        return self.fc_param(x.mean(dim=(2, 3)))

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return poses (B, 3) in degrees, float64 on the images' device."""
        numbers = self.deviations(faces.image) * self.std + self.mean
        return angles(numbers[:, :POSE].double().reshape(-1, 3, 4)[:, :, :3])


class ThreeDDFAExpression(ThreeDDFA):
    """Estimator of ten expression coefficients by 3DDFA_V2, with user-supplied weights as for `3ddfa`.

    Coefficients are standardised by the training statistics, for equal weight.
    """

    name = "3ddfa-expression"
    quantity = "expression"

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return expression coefficients (B, 10), float64 on the images' device."""
        return self.deviations(faces.image)[:, -EXPRESSION:].double()


def angles(matrices: Tensor) -> Tensor:
    """Return yaw, pitch and roll (B, 3) in degrees of scaled rotations (B, 3, 3); the third row is ignored.

    Positive is towards the viewer's right, up, and clockwise in the image.
    """
    right = torch.nn.functional.normalize(matrices[:, 0], dim=1)
    up = torch.nn.functional.normalize(matrices[:, 1], dim=1)
    ahead = torch.linalg.cross(right, up)
    yaw = -torch.asin(ahead[:, 0].clamp(-1, 1))
    pitch = -torch.atan2(ahead[:, 1], ahead[:, 2])
    roll = -torch.atan2(up[:, 0], right[:, 0])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], dim=1))


def _module_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {name: name.removeprefix("module.") for name in state}
    inner = {name for name, *_ in LAYERS}
    return {
        f"layers.{short}" if short.partition(".")[0] in inner else short: state[name] for name, short in names.items()
    }


def _statistic(path: Path, name: str) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as file:
            values = np.asarray(file[name], dtype=np.float32)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"{path}: holds no {name}; give an .npz with mean and std of 62 numbers") from error
    if values.shape != (NUMBERS,) or not np.isfinite(values).all():
        raise UserError(f"{path}: {name} is not {NUMBERS} finite numbers; give 3DDFA_V2's own")
    return torch.from_numpy(values)
