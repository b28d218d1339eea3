"""Stability: does a swapped video flicker?"""

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from fsframework.core.components import Benchmark, Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.media.tensor import to_images


class Stability(Benchmark):
    """How much more a swap changes from frame to frame than its target moves, in grey levels; lower is better.

    The warping error (Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, section 4.2): the next frame
    of the swap is warped back by the optical flow of the target's two frames and compared; what the target's own
    frames leave in the same way is taken off. The flow is OpenCV's DIS instead of FlowNet2, and nothing is left out
    as hidden. Copying the target has 0. Needs frames of videos, close to each other: `ffpp` with `step: 1`.
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
        person, place = key
        following = faces.next_frame(place)
        if following is None or (person, following) not in frames:
            return float("nan")
        (swap, target), (next_swap, next_target) = frames[key], frames[person, following]
        flow = flow_of(target, next_target)
        return change(swap, next_swap, flow) - change(target, next_target, flow)


def flow_of(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """Where each pixel of a frame (S, S, 3) uint8 lies in the following one: (S, S, 2) pixels of shift."""
    greys = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (frame, following)]
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*greys, None)  # type: ignore[call-overload]


def change(frame: np.ndarray, following: np.ndarray, flow: np.ndarray) -> float:
    """Mean absolute difference, in grey levels, of a frame and the following one warped back by the flow."""
    rows, columns = np.mgrid[: len(frame), : len(frame)].astype(np.float32)
    places = np.stack([columns, rows], axis=2) + flow
    back = cv2.remap(following, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return float(np.abs(back.astype(np.float64) - frame).mean())
