"""MTCNN: a cascade of three small networks, P-Net, R-Net and O-Net. Zhang et al., arXiv:1604.02878.

The weights are the authors', from the pip package mtcnn (MIT licence). With `border: 0`, boxes, landmarks and scores
equal those of facenet-pytorch 2.6, which has the same weights. The exception are two boxes of one face with equal
scores; see benchmarks/scripts/detector_agreement.py. By default, R-Net and O-Net see a face that the frame cuts in its
proportions, as in the authors' code: facenet-pytorch stretches what is left of its crop, which shifts the landmarks.
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

WEIGHTS = {  # file in the package mtcnn -> SHA-256; pickles, which are only opened after verification
    "pnet.lz4": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet.lz4": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet.lz4": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
CELL, STRIDE = 12, 2  # receptive field and stride of the P-Net, in pixels
PIXELS = 1 << 20  # maximum pixels per batch of a network, which bounds memory

Fraction = Annotated[float, Field(ge=0, le=1)]


class Candidates(NamedTuple):
    """Candidate boxes in frames of one size."""

    boxes: Tensor  # (N, 4)
    scores: Tensor  # (N,) 0..1
    owners: Tensor  # (N,) int64, the frame of each
    said: Tensor  # (N, 4 or 14) network outputs: shifts of the edges and landmarks, in units of the box

    def take(self, which: Tensor) -> Self:
        """Return the candidates that `which` selects: indices (n,) or a mask (N,) bool."""
        return type(self)(*(value[which] for value in self))

    def best(self, rule: rules.Rule, threshold: float) -> Self:
        """Return the candidates after non-maximum suppression by `rule` within each frame."""
        return self.take(rules.best(rule, self.boxes, self.scores, self.owners, threshold))


class MTCNN(Detector):
    """Detector of faces and five landmarks by a cascade of three networks; fast on CPUs.

    Box coordinates are 1-based, as in the authors' code; landmarks are 0-based, as in the rest of the framework.
    """

    name = "mtcnn"
    certain_score = 0.9985  # 96 % of the upright faces of LFW have more, and nearly no false face in a turned one

    class Options(ComponentOptions):
        min_face: int = Field(20, ge=1, description="Side of the smallest detectable face, in pixels.")
        thresholds: tuple[Fraction, Fraction, Fraction] = Field(
            (0.6, 0.7, 0.7), description="Minimum scores in P-Net, R-Net and O-Net, 0 to 1."
        )
        factor: float = Field(0.709, gt=0, lt=1, description="Scale between levels of the image pyramid.")
        border: float = Field(
            0.5,
            ge=0,
            le=1,
            description="How far faces may reach beyond the frame, in units of its shorter side; there it is grey. "
            "With 0 their crops end at the frame and are stretched, as in facenet-pytorch.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        # Each ends in one layer for all outputs: edges (4), landmarks (10, O-Net alone), face or not (a logit).
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
        """Load the weights from the package mtcnn. Raises UserError if it is missing or a file was changed."""
        for network, file in zip((self.pnet, self.rnet, self.onet), WEIGHTS, strict=True):
            load_network(network, file)
        for module in self.modules():
            if isinstance(module, SmallConvolutions):
                module.pack()

    @torch.inference_mode()
    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Return the faces of each frame, best first.

        Parameters
        ----------
        frames:
            (H, W, 3) uint8 RGB each; sizes may differ. Frames of one size form a batch.
        """
        device = next(self.parameters()).device
        result: list[list[Face]] = [[] for _ in frames]
        for group in by_size(frames):
            faces = self._detect(summed_area.tables([frames[index] for index in group], device))
            for box, score, owner, points in zip(*(value.cpu().numpy() for value in faces), strict=True):
                result[group[owner]].append(Face(box=box, landmarks=points.reshape(2, 5).T, score=float(score)))
        return result

    def _detect(self, sums: Tensor) -> Candidates:
        """Return the faces in frames of `summed_area.tables`, best first; `said` holds landmarks (N, 10) in pixels.

        Landmarks are five x coordinates, then five y coordinates.
        """
        _, refine, accept = self.options.thresholds
        border = round(self.options.border * min(side - 1 for side in sums.shape[1:3]))
        candidates = self._propose(sums).best(rules.by_union, 0.7)
        candidates = candidates._replace(boxes=rules.square(rules.move(candidates.boxes, candidates.said, 0)))
        candidates = _refine(self.rnet, 24, sums, border, candidates, refine).best(rules.by_union, 0.7)
        candidates = candidates._replace(boxes=rules.square(rules.move(candidates.boxes, candidates.said, 1)))
        candidates = _refine(self.onet, 48, sums, border, candidates, accept)
        candidates = candidates._replace(
            boxes=rules.move(candidates.boxes, candidates.said[:, :4], 1), said=_landmarks_in_pixels(candidates)
        )
        return candidates.best(rules.by_smaller, 0.7)

    def _propose(self, sums: Tensor) -> Candidates:
        """Return the P-Net's candidates at all levels of the image pyramid."""
        height, width = (side - 1 for side in sums.shape[1:3])
        owners = torch.arange(len(sums), device=sums.device)
        frames = owners.new_tensor([0, 0, width, height]).repeat(len(sums), 1)
        levels = [_no_candidates(sums.device)]  # so that frames smaller than a face have a result
        scale = CELL / self.options.min_face
        while min(height, width) * scale >= CELL:
            size = int(height * scale + 1), int(width * scale + 1)
            maps = _run(self.pnet, sums, frames, owners, size)
            levels.append(self._read(maps, scale).best(rules.by_union, 0.5))
            scale *= self.options.factor
        return Candidates(*(torch.cat(values) for values in zip(*levels, strict=True)))

    def _read(self, maps: Tensor, scale: float) -> Candidates:
        """Return the candidates of P-Net maps (B, 5, h, w) whose score reaches the threshold."""
        scores = maps[:, 4].sigmoid()
        owners, y, x = (scores >= self.options.thresholds[0]).nonzero(as_tuple=True)
        corner = torch.stack([x, y], dim=1) * STRIDE + 1
        boxes = torch.cat([corner, corner + CELL - 1], dim=1).div(scale).floor()
        return Candidates(boxes, scores[owners, y, x], owners, maps[owners, :4, y, x])


def onet() -> nn.Sequential:
    """Return the O-Net without weights: crops (B, 3, 48, 48) to (B, 15) edges (4), landmarks (5 x, 5 y), a logit."""
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
    """Load one network's weights from `file`, a key of `WEIGHTS`. Raises UserError as `MTCNN.load` does."""
    data = read(package_file("mtcnn", f"mtcnn/assets/weights/{file}"), WEIGHTS[file])
    import joblib  # type: ignore[import-untyped]  # takes a quarter of a second, so imported on use

    state = _from_keras(joblib.load(io.BytesIO(data)))
    network.load_state_dict(dict(zip(network.state_dict(), state, strict=True)))


def _conv(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)


def _from_keras(arrays: list[np.ndarray]) -> list[Tensor]:
    """Return Keras parameters in the order of the layers here.

    In Keras the last layers are edges, landmarks (O-Net alone), and the logits of background and face.
    """
    state = []
    for array in map(torch.as_tensor, arrays):
        if array.ndim == 4:  # (kernel, kernel, in, out)
            array = array.permute(3, 2, 0, 1)
        elif array.ndim == 2:  # (in, out)
            array = array.T
            if array.shape[1] in (576, 1152):  # its input is a 3 x 3 map, flattened as (x, y, channel)
                array = array.unflatten(1, (3, 3, -1)).permute(0, 3, 2, 1).flatten(1)
        else:
            array = array.flatten()
        state.append(array)
    heads = 3 if len(state[-3]) == 10 else 2
    body, weights, biases = state[: -2 * heads], state[-2 * heads :: 2], state[-2 * heads + 1 :: 2]
    # The softmax over (background, face) equals the sigmoid of the difference.
    return [*body, *(torch.cat([*parts[:-1], parts[-1][1:] - parts[-1][:1]]) for parts in (weights, biases))]


def _no_candidates(device: torch.device) -> Candidates:
    empty = torch.zeros(0, device=device)
    return Candidates(empty.view(0, 4), empty, empty.long(), empty.view(0, 4))


def _run(network: nn.Module, sums: Tensor, boxes: Tensor, owners: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a network's outputs for boxes, as `summed_area.crop` takes them, each resized to `size` pixels."""
    count = max(1, PIXELS // (size[0] * size[1]))
    crops = (summed_area.crop(sums, *part, size) for part in zip(boxes.split(count), owners.split(count), strict=True))
    return torch.cat([network(crop.sub_(127.5).div_(128)) for crop in crops])


def _refine(
    network: nn.Module, side: int, sums: Tensor, border: int, candidates: Candidates, threshold: float
) -> Candidates:
    """Return the candidates in the frame whose score in a network exceeds the threshold, with its outputs.

    Their crops reach at most `border` pixels beyond the frame.
    """
    corners = candidates.boxes.floor().long()  # 1-based, last pixel included
    corners = torch.cat([corners[:, :2] - 1, corners[:, 2:]], dim=1)
    end = corners.new_tensor([sums.shape[2] - 1, sums.shape[1] - 1])
    overlap = corners[:, 2:].minimum(end) > corners[:, :2].clamp(min=0)
    corners = torch.cat([corners[:, :2].clamp(min=-border), corners[:, 2:].minimum(end + border)], dim=1)
    inside = overlap.all(dim=1)
    candidates = candidates.take(inside)
    outputs = _run(network, sums, corners[inside], candidates.owners, (side, side))
    scores = outputs[:, -1].sigmoid()
    return Candidates(candidates.boxes, scores, candidates.owners, outputs[:, :-1]).take(scores > threshold)


def _landmarks_in_pixels(candidates: Candidates) -> Tensor:
    """Return landmarks (N, 10) in 0-based pixels."""
    sides = (candidates.boxes[:, 2:] - candidates.boxes[:, :2] + 1).repeat_interleave(5, dim=1)
    return candidates.said[:, 4:] * sides + candidates.boxes[:, :2].repeat_interleave(5, dim=1) - 1
