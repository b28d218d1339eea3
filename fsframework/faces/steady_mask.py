"""Steady masks of one face over the frames of a video, without smearing what moves."""

import math

import cv2
import numpy as np

MEMORY = 0.12  # seconds, after which an earlier mask weighs 1/e of the present one
LEAD = 0.6  # seconds; earlier masks weigh less than 1 % in sum
BLUR = 0.02  # standard deviation, in units of the crop's side, of the crops whose difference is measured
CHANGE = 10.0  # grey levels: where a crop changes more, earlier masks hardly count


class MaskSmoother:
    """Exponential mean of the masks of one track, in crop coordinates.

    Aligned crops of one face differ little from frame to frame, and a segmentation network's errors differ more. An
    earlier mask counts only where the crop has not changed since, so that a hand in front of the face leaves no trace.

    Parameters
    ----------
    rate:
        Frames per second.
    """

    def __init__(self, rate: float) -> None:
        self.decay = math.exp(-1 / (MEMORY * rate))
        self.mask: np.ndarray | None = None
        self.image: np.ndarray | None = None

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return the smoothed mask (S, S) float32 of the next frame.

        Parameters
        ----------
        image:
            The face's crop, (S, S, 3) uint8.
        mask:
            Its own mask, (S, S) in 0..1.
        """
        image = cv2.GaussianBlur(image, (0, 0), BLUR * len(image)).astype(np.float32)
        mask = mask.astype(np.float32)
        if self.mask is not None and self.image is not None:
            change = np.abs(image - self.image).mean(axis=2)
            weight = self.decay * np.exp(-((change / CHANGE) ** 2))
            mask = mask + weight * (self.mask - mask)
        self.mask, self.image = mask, image
        return mask


def lead_frames(rate: float) -> int:
    """Return the number of frames before a section of a video that its masks depend on."""
    return math.ceil(LEAD * rate)
