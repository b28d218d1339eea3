"""MTCNN: three small networks, each of which refines the boxes of the one before. Zhang et al., arXiv:1604.02878.

The weights are the authors', as the pip package mtcnn carries them (MIT licence). With default options boxes, landmarks
and scores equal those of facenet-pytorch 2.6, whose weights are the same, save where two boxes of one face have equal
scores: see benchmarks/scripts/detector_agreement.py.
"""

import io
from typing import Annotated, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fsf_detectors import boxes as rules
from fsf_detectors import summed_area
from fsf_detectors.frames import by_size
from fsf_detectors.small_convolutions import SmallConvolutions
from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.types import Face
from fsframework.utils.files import package_file
from fsframework.utils.weights import read

WEIGHTS = {  # file in the package mtcnn -> SHA-256; pickles, so they are never opened unverified
    "pnet.lz4": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet.lz4": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet.lz4": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
CELL, STRIDE = 12, 2  # pixels: what one output of the P-Net sees, and how far apart two are
PIXELS = 1 << 20  # that one call of a network takes, so that memory stays bounded

Share = Annotated[float, Field(ge=0, le=1)]


class Candidates(NamedTuple):
    """Boxes that may hold a face, in frames of one size."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,) 0..1
    owners: Tensor  # (N,) int64, the frame of each
    said: Tensor  # (N, 4 or 14) shifts of the edges and landmarks, in units of the box

    def take(self, which: Tensor) -> Self:
        """Some of them, by place or by mask."""
        return type(self)(*(value[which] for value in self))

    def best(self, rule: rules.Rule, threshold: float) -> Self:
        """Those that no better box of the same frame overlaps by more."""
        return self.take(rules.best(rule, self.boxes, self.scores, self.owners, threshold))


class MTCNN(Detector):
    """Faces with five landmarks by a cascade of three networks; fast on CPUs.

    Boxes count the first pixel as 1, as the authors' do; landmarks count it as 0, as everywhere here.
    """

    name = "mtcnn"

    class Options(ComponentOptions):
        min_face: int = Field(20, ge=1, description="Side of the smallest face to look for, in pixels.")
        thresholds: tuple[Share, Share, Share] = Field(
            (0.6, 0.7, 0.7), description="Scores that a face must reach in the three networks, 0 to 1."
        )
        factor: float = Field(0.709, gt=0, lt=1, description="Size of a pyramid image, in units of the one before.")
        border: float = Field(
            0, ge=0, le=1, description="How far faces may reach beyond the frame, in units of its shorter side."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        # Each ends in one layer for all it says: edges (4), landmarks (10, O-Net alone), face or not (a logit).
        self.pnet = SmallConvolutions(
            *_conv(3, 10, 3), nn.MaxPool2d(2, 2, ceil_mode=True), *_conv(10, 16, 3), *_conv(16, 32, 3),
            nn.Conv2d(32, 5, 1),
        )  # fmt: skip
        self.rnet = nn.Sequential(
            SmallConvolutions(
                *_conv(3, 28, 3), nn.MaxPool2d(3, 2, ceil_mode=True),
                *_conv(28, 48, 3), nn.MaxPool2d(3, 2, ceil_mode=True),
                *_conv(48, 64, 2),
            ),
            nn.Flatten(), nn.Linear(576, 128), nn.PReLU(128),
            nn.Linear(128, 5),
        )  # fmt: skip
        self.onet = onet()
        self.requires_grad_(False)

    def load(self) -> None:
        """Read the weights from the installed package. Raises UserError if it is missing or a file was changed."""
        for network, file in zip((self.pnet, self.rnet, self.onet), WEIGHTS, strict=True):
            load_network(network, file)
        for module in self.modules():
            if isinstance(module, SmallConvolutions):
                module.pack()

    @torch.inference_mode()
    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Faces of each frame, best first.

        Parameters
        ----------
        frames:
            (H, W, 3) uint8 RGB each; sizes may differ. Frames of one size are worked on together.
        """
        device = next(self.parameters()).device
        found: list[list[Face]] = [[] for _ in frames]
        for group in by_size(frames):
            border = round(self.options.border * min(frames[group[0]].shape[:2]))
            faces = self._detect(summed_area.tables([frames[place] for place in group], border, device), border)
            for box, score, owner, points in zip(*(value.cpu().numpy() for value in faces), strict=True):
                found[group[owner]].append(Face(box=box, landmarks=points.reshape(2, 5).T, score=float(score)))
        return found

    def _detect(self, sums: Tensor, border: int) -> Candidates:
        """Faces, best first, with landmarks (N, 10) in pixels, all x before all y; of `summed_area.tables`."""
        _, refine, accept = self.options.thresholds
        found = self._propose(sums, border).best(rules.by_union, 0.7)
        found = found._replace(boxes=rules.square(rules.move(found.boxes, found.said, 0)))
        found = _judge(self.rnet, 24, sums, border, found, refine).best(rules.by_union, 0.7)
        found = found._replace(boxes=rules.square(rules.move(found.boxes, found.said, 1)))
        found = _judge(self.onet, 48, sums, border, found, accept)
        found = found._replace(boxes=rules.move(found.boxes, found.said[:, :4], 1), said=_points(found))
        return found.best(rules.by_smaller, 0.7)

    def _propose(self, sums: Tensor, border: int) -> Candidates:
        """What the P-Net takes for faces, at all scales. The border has none."""
        height, width = (side - 1 - 2 * border for side in sums.shape[1:3])
        owners = torch.arange(len(sums), device=sums.device)
        frames = (owners.new_tensor([0, 0, width, height]) + border).repeat(len(sums), 1)
        found = [_none(sums.device)]  # for a frame smaller than a face
        scale = CELL / self.options.min_face
        while min(height, width) * scale >= CELL:
            size = int(height * scale + 1), int(width * scale + 1)
            maps = _look(self.pnet, sums, frames, owners, size)
            found.append(self._read(maps, scale).best(rules.by_union, 0.5))
            scale *= self.options.factor
        return Candidates(*(torch.cat(values) for values in zip(*found, strict=True)))

    def _read(self, maps: Tensor, scale: float) -> Candidates:
        """The cells of P-Net maps (B, 5, h, w) that pass."""
        scores = maps[:, 4].sigmoid()
        owners, y, x = (scores >= self.options.thresholds[0]).nonzero(as_tuple=True)
        corner = torch.stack([x, y], dim=1) * STRIDE + 1
        boxes = torch.cat([corner, corner + CELL - 1], dim=1).div(scale).floor()
        return Candidates(boxes, scores[owners, y, x], owners, maps[owners, :4, y, x])


def onet() -> nn.Sequential:
    """The last network, without weights: crops (B, 3, 48, 48) to edges, landmarks (all x, all y), a logit: (B, 15)."""
    return nn.Sequential(
        SmallConvolutions(
            *_conv(3, 32, 3), nn.MaxPool2d(3, 2, ceil_mode=True),
            *_conv(32, 64, 3), nn.MaxPool2d(3, 2, ceil_mode=True),
            *_conv(64, 64, 3), nn.MaxPool2d(2, 2, ceil_mode=True),
            *_conv(64, 128, 2),
        ),
        nn.Flatten(), nn.Linear(1152, 256), nn.PReLU(256),
        nn.Linear(256, 15),
    ).requires_grad_(False)  # fmt: skip


def load_network(network: nn.Module, file: str) -> None:
    """Read the weights of one of the three, a key of `WEIGHTS`. Raises UserError as `MTCNN.load` does."""
    data = read(package_file("mtcnn", f"mtcnn/assets/weights/{file}"), WEIGHTS[file])
    import joblib  # type: ignore[import-untyped]  # a quarter of a second, for which only those wait who find faces

    state = _from_keras(joblib.load(io.BytesIO(data)))
    network.load_state_dict(dict(zip(network.state_dict(), state, strict=True)))


def _conv(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)


def _from_keras(arrays: list[np.ndarray]) -> list[Tensor]:
    """Parameters in the order of our layers; in Keras the last are edges, landmarks (O-Net alone), not and face."""
    state = []
    for array in map(torch.as_tensor, arrays):
        if array.ndim == 4:  # (kernel, kernel, in, out)
            array = array.permute(3, 2, 0, 1)
        elif array.ndim == 2:  # (in, out)
            array = array.T
            if array.shape[1] in (576, 1152):  # it sees a map of 3 x 3, flattened as (x, y, channel)
                array = array.unflatten(1, (3, 3, -1)).permute(0, 3, 2, 1).flatten(1)
        else:
            array = array.flatten()
        state.append(array)
    heads = 3 if len(state[-3]) == 10 else 2
    body, weights, biases = state[: -2 * heads], state[-2 * heads :: 2], state[-2 * heads + 1 :: 2]
    # Softmax over (not, face) is the sigmoid of the difference.
    return [*body, *(torch.cat([*parts[:-1], parts[-1][1:] - parts[-1][:1]]) for parts in (weights, biases))]


def _none(device: torch.device) -> Candidates:
    empty = torch.zeros(0, device=device)
    return Candidates(empty.view(0, 4), empty, empty.long(), empty.view(0, 4))


def _look(network: nn.Module, sums: Tensor, boxes: Tensor, owners: Tensor, size: tuple[int, int]) -> Tensor:
    """What a network says of rectangles, as `summed_area.crop` takes them, each resized to what it sees at once."""
    count = max(1, PIXELS // (size[0] * size[1]))
    crops = (summed_area.crop(sums, *part, size) for part in zip(boxes.split(count), owners.split(count), strict=True))
    return torch.cat([network(crop.sub_(127.5).div_(128)) for crop in crops])


def _judge(network: nn.Module, side: int, sums: Tensor, border: int, found: Candidates, threshold: float) -> Candidates:
    """The candidates that pass a network, with its scores and what it says. Those outside the frame do not."""
    corners = found.boxes.floor().long() + border  # the first pixel is 1, the last is inside
    limit = corners.new_tensor([sums.shape[2] - 1, sums.shape[1] - 1])
    corners = torch.cat([corners[:, :2].clamp(min=1) - 1, corners[:, 2:].minimum(limit)], dim=1)
    inside = (corners[:, 2:] > corners[:, :2]).all(dim=1)
    found = found.take(inside)
    said = _look(network, sums, corners[inside], found.owners, (side, side))
    scores = said[:, -1].sigmoid()
    return Candidates(found.boxes, scores, found.owners, said[:, :-1]).take(scores > threshold)


def _points(found: Candidates) -> Tensor:
    """Landmarks (N, 10) in pixels, where the first pixel is 0."""
    sides = (found.boxes[:, 2:] - found.boxes[:, :2] + 1).repeat_interleave(5, dim=1)
    return found.said[:, 4:] * sides + found.boxes[:, :2].repeat_interleave(5, dim=1) - 1
