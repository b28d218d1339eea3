"""Temporal stability of swapped videos."""

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from fsframework.core.components import Benchmark, Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.media.tensor import to_images


class Stability(Benchmark):
    """Measure the flicker of swaps: warping error of swap minus that of target, in grey levels; lower is better.

    Warping error (Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, section 4.2): the next frame is
    warped back by the optical flow of the target and compared with the current one. The flow is OpenCV's DIS instead of
    FlowNet2, and occluded pixels are not excluded. Copying the target has 0. It needs consecutive frames of videos:
    `ffpp` with `step: 1`.
    """

    name = "stability"
    fails = "The target is no frame of a video, or no neighbouring frame of it is swapped with the same person."
    metrics: ClassVar = {
        "flicker": MetricInfo(
            "", "lower", "Warping error of two frames of the swap less that of the target's (0 to 255)."
        ),
    }

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        """Return the pictures by person and target's place: neighbouring frames may lie in several batches."""
        pictures = zip(to_images(swap.image), to_images(batch.target.image), strict=True)
        keys = list(zip(batch.source.person.tolist(), batch.target.index.tolist(), strict=True))
        return {"order": keys, "frames": dict(zip(keys, pictures, strict=True))}

    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        frames: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for part in parts:
            frames |= part["frames"]
        order = [key for part in parts for key in part["order"]]
        return {"flicker": np.array([self._flicker(frames, key, faces) for key in order])}

    def _flicker(self, frames: dict[Any, tuple[np.ndarray, np.ndarray]], key: tuple[int, int], faces: Dataset) -> float:
        person, index = key
        following = faces.next_frame(index)
        if following is None or (person, following) not in frames:
            return float("nan")
        (swap, target), (next_swap, next_target) = frames[key], frames[person, following]
        flow = flow_of(target, next_target)
        return change(swap, next_swap, flow) - change(target, next_target, flow)


def flow_of(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Return the optical flow (S, S, 2) in pixels from a frame (S, S, 3) uint8 to the following one."""
    greys = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (frame, following)]
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*greys, None)  # type: ignore[call-overload]


def change(frame: np.ndarray, following: np.ndarray, flow: np.ndarray) -> float:
    """Return the mean absolute difference, in grey levels, of a frame and the following one warped back by the flow."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    coordinates = np.stack([columns, rows], axis=2) + flow
    back = cv2.remap(following, coordinates, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return float(np.abs(back.astype(np.float64) - frame).mean())
