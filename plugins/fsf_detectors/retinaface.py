"""RetinaFace: single-shot face detector with landmarks. Deng et al., arXiv:1905.00641."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsf_detectors import boxes as rules
from fsf_detectors.frames import by_size
from fsf_detectors.retinaface_network import ANCHORS, mobilenet, resnet
from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.types import Face
from fsframework.utils.weights import fill_published, fold_norms, load_state

STRIDES = (8, 16, 32)
SIDES = {  # of the anchors, in pixels, two at each stride
    "mobilenet-0.25": (10, 20, 32, 64, 128, 256),
    "resnet-50": (16, 32, 64, 128, 256, 512),
}
MEAN = (104.0, 117.0, 123.0)  # blue, green, red: subtracted from 8-bit values, as in the public code
PLACE, SIZE = 0.1, 0.2  # variances of the box encoding: of shifts in anchor sides, and of logarithms of sizes
BATCH_PIXELS = 1 << 22  # maximum pixels per batch, which bounds memory

Fraction = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[float, Field(gt=0)]


class RetinaFace(Detector):
    """Single-shot detector of faces and five landmarks, with user-supplied weights.

    Published weights share tensor names but differ in the slope of the ReLUs and the sides of the anchors, which the
    files do not record. The defaults fit the MobileNet weights (MIT, trained on WIDER FACE) whose SHA-256 begins with
    ed6fa7d4. With the defaults, landmarks are 3.3 pixels from mtcnn's on faces 90 pixels wide; with other slopes or
    sides, 4 to 50 pixels. `resnet-50` was tested for names and shapes only, without weights and never on faces.
    """

    name = "retinaface"

    class Options(ComponentOptions):
        weights: Path = Field(description="State dict, .pt, .pth or .safetensors.")
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )
        layout: Literal["mobilenet-0.25", "resnet-50"] = Field("mobilenet-0.25", description="The backbone.")
        slope: float = Field(0.0, ge=0, le=1, description="Negative slope of the leaky ReLUs; 0: plain ReLUs.")
        anchors: tuple[Side, Side, Side, Side, Side, Side] | None = Field(
            None, description="Sides of the anchors in pixels, two each at strides 8, 16 and 32; null: the layout's."
        )
        threshold: Fraction = Field(0.6, description="Minimum score of a face.")
        overlap: Fraction = Field(
            0.4, description="Intersection over union above which the worse of two boxes is suppressed."
        )
        longest: int = Field(
            1024, ge=64, description="Maximum longer side of frames, in pixels; larger frames are reduced."
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        build = mobilenet if options.layout == "mobilenet-0.25" else resnet
        self.network = build(options.slope)
        self.sides = options.anchors or SIDES[options.layout]
        self.requires_grad_(False)
        self.eval()

    def load(self) -> None:
        """Load the weights, and fold batch norms into the convolutions before them.

        Raises
        ------
        UserError
            The file cannot be read, has another hash, or belongs to another layout.
        """
        path = self.options.weights
        state = load_state(path, self.options.sha256, below="state_dict")
        fill_published(self.network, state, f"{path}: is no RetinaFace of the layout {self.options.layout}")
        fold_norms(self.network)
        self.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Return the faces of each frame, best first.

        Parameters
        ----------
        frames:
            (H, W, 3) uint8 RGB each; sizes may differ. Frames of one size form a batch.
        """
        result: list[list[Face]] = [[] for _ in frames]
        for group in by_size(frames):
            batch = max(1, BATCH_PIXELS // max(1, int(np.prod(frames[group[0]].shape[:2]))))
            for start in range(0, len(group), batch):
                part = group[start : start + batch]
                for index, faces in zip(part, self._detect([frames[i] for i in part]), strict=True):
                    result[index] = faces
        return result

    def _detect(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Return the faces of each of several frames of one size."""
        scale = min(1.0, self.options.longest / max(frames[0].shape[:2]))
        if scale < 1:
            frames = [cv2.resize(f, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for f in frames]
        height, width = frames[0].shape[:2]
        images = torch.from_numpy(np.stack(frames)).to(next(self.parameters()).device)
        images = (
            images.permute(0, 3, 1, 2).flip(1).float() - images.new_tensor(MEAN, dtype=torch.float32)[:, None, None]
        )
        logits, moves, points = self.network(images.contiguous(memory_format=torch.channels_last))
        scores = logits.softmax(dim=2)[..., 1]  # (B, N)
        owners, which = (scores > self.options.threshold).nonzero(as_tuple=True)
        scores = scores[owners, which]
        anchors = anchors_of(height, width, self.sides).to(images.device)[which]
        corners = boxes_of(anchors, moves[owners, which])
        kept = rules.best(rules.by_union, corners, scores, owners, self.options.overlap)
        landmarks = points_of(anchors, points[owners, which])
        # The network's origin is the corner of the first pixel; results are relative to its centre, in the full frame.
        detections = zip(
            owners[kept].tolist(),
            (corners[kept] / scale - 0.5).cpu().numpy(),
            (landmarks[kept] / scale - 0.5).cpu().numpy(),
            scores[kept].tolist(),
            strict=True,
        )
        result: list[list[Face]] = [[] for _ in frames]
        for owner, box, five, score in detections:
            result[owner].append(Face(box=box, landmarks=five, score=score))
        return result


def anchors_of(height: int, width: int, sides: Sequence[float]) -> Tensor:
    """Return centres and sides (N, 3) in pixels of all anchors of an image, ordered by stride, row, column, side."""
    levels = []
    for level, stride in enumerate(STRIDES):
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        centres = (torch.stack([x, y], dim=-1) * stride).reshape(-1, 1, 2).expand(-1, ANCHORS, 2)
        level_sides = torch.tensor(sides[ANCHORS * level : ANCHORS * (level + 1)], dtype=torch.float32)
        side = level_sides.reshape(1, ANCHORS, 1).expand(len(centres), -1, -1)
        levels.append(torch.cat([centres, side], dim=2).reshape(-1, 3))
    return torch.cat(levels)


def boxes_of(anchors: Tensor, moves: Tensor) -> Tensor:
    """Return boxes (N, 4) left, top, right, bottom in pixels from anchors (N, 3) and the network's offsets (N, 4)."""
    side = anchors[:, 2:]
    centres = anchors[:, :2] + PLACE * moves[:, :2] * side
    halves = 0.5 * side * torch.exp(SIZE * moves[:, 2:])
    return torch.cat([centres - halves, centres + halves], dim=1)


def points_of(anchors: Tensor, moves: Tensor) -> Tensor:
    """Return landmarks (N, 5, 2) in pixels from anchors (N, 3) and the network's offsets (N, 10)."""
    return anchors[:, None, :2] + PLACE * moves.unflatten(1, (5, 2)) * anchors[:, None, 2:]
