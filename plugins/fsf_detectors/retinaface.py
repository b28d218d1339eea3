"""RetinaFace: faces of all sizes in one pass. Deng et al., arXiv:1905.00641."""

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
PLACE, SIZE = 0.1, 0.2  # factors of what the network says: shifts in anchor sides, logarithms of sizes
BATCH_PIXELS = 1 << 22  # of frames that go through the network at once, so that memory stays bounded

Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[float, Field(gt=0)]


class RetinaFace(Detector):
    """Faces with five landmarks in one pass over the frame, with weights of your own.

    Published weights share the names of their tensors and differ in what no name tells: the slope of the ReLUs and the
    sides of the anchors. The defaults fit the MobileNet weights (MIT, trained on WIDER FACE) whose SHA-256 begins with
    ed6fa7d4: with other slopes or sides its landmarks lie 4 to 50 pixels from mtcnn's on faces 90 pixels wide, with
    these 3.3. `resnet-50` is a layout only: no weights were at hand, so it was tested for names and shapes, and never
    on faces.
    """

    name = "retinaface"

    class Options(ComponentOptions):
        weights: Path = Field(description="Its state dict, .pt, .pth or .safetensors.")
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Hash that the file of weights must have."
        )
        layout: Literal["mobilenet-0.25", "resnet-50"] = Field("mobilenet-0.25", description="The backbone.")
        slope: float = Field(0.0, ge=0, le=1, description="Of the leaky ReLUs; 0: plain ones.")
        anchors: tuple[Side, Side, Side, Side, Side, Side] | None = Field(
            None, description="Sides of the anchors in pixels, two each at strides 8, 16 and 32; null: the layout's."
        )
        threshold: Share = Field(0.6, description="Score that a face must reach.")
        overlap: Share = Field(0.4, description="Intersection over union from which on the worse of two boxes goes.")
        longest: int = Field(
            1024, ge=64, description="Longer sides of frames, in pixels; larger frames are looked at smaller."
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
        """Read the weights, and make batch norms part of the convolutions before them.

        Raises
        ------
        UserError
            The file cannot be read, has another hash, or is not of this layout.
        """
        path = self.options.weights
        state = load_state(path, self.options.sha256, below="state_dict")
        fill_published(self.network, state, f"{path}: is no RetinaFace of the layout {self.options.layout}")
        fold_norms(self.network)
        self.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Faces of each frame, best first.

        Parameters
        ----------
        frames:
            (H, W, 3) uint8 RGB each; sizes may differ. Frames of one size are worked on together.
        """
        found: list[list[Face]] = [[] for _ in frames]
        for group in by_size(frames):
            together = max(1, BATCH_PIXELS // max(1, int(np.prod(frames[group[0]].shape[:2]))))
            for start in range(0, len(group), together):
                part = group[start : start + together]
                for place, faces in zip(part, self._detect([frames[each] for each in part]), strict=True):
                    found[place] = faces
        return found

    def _detect(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Faces of frames of one size."""
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
        # Coordinates count from the corner of the first pixel; ours from its centre, in the frame before it shrank.
        shown = zip(
            owners[kept].tolist(),
            (corners[kept] / scale - 0.5).cpu().numpy(),
            (landmarks[kept] / scale - 0.5).cpu().numpy(),
            scores[kept].tolist(),
            strict=True,
        )
        found: list[list[Face]] = [[] for _ in frames]
        for owner, box, five, score in shown:
            found[owner].append(Face(box=box, landmarks=five, score=score))
        return found


def anchors_of(height: int, width: int, sides: Sequence[float]) -> Tensor:
    """Centres and sides (N, 3) in pixels of all anchors of an image: by stride, row, column, side."""
    levels = []
    for level, stride in enumerate(STRIDES):
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        centres = (torch.stack([x, y], dim=-1) * stride).reshape(-1, 1, 2).expand(-1, ANCHORS, 2)
        own = torch.tensor(sides[ANCHORS * level : ANCHORS * (level + 1)], dtype=torch.float32)
        side = own.reshape(1, ANCHORS, 1).expand(len(centres), -1, -1)
        levels.append(torch.cat([centres, side], dim=2).reshape(-1, 3))
    return torch.cat(levels)


def boxes_of(anchors: Tensor, moves: Tensor) -> Tensor:
    """Boxes (N, 4) left, top, right, bottom in pixels, of anchors (N, 3) and what the network says (N, 4)."""
    side = anchors[:, 2:]
    centres = anchors[:, :2] + PLACE * moves[:, :2] * side
    halves = 0.5 * side * torch.exp(SIZE * moves[:, 2:])
    return torch.cat([centres - halves, centres + halves], dim=1)


def points_of(anchors: Tensor, moves: Tensor) -> Tensor:
    """Landmarks (N, 5, 2) in pixels, of anchors (N, 3) and what the network says (N, 10)."""
    return anchors[:, None, :2] + PLACE * moves.unflatten(1, (5, 2)) * anchors[:, None, 2:]
