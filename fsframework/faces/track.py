"""Who is who from frame to frame: the faces of a video as tracks, one for each appearance, with steady landmarks."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from fsframework.core.types import Face
from fsframework.faces.detect_video import overlap

LINK = 0.25  # intersection over union from which a face goes on a track
GAP = 0.4  # seconds without a face that a track bridges
SHORT, LONG = 0.36, 1.2  # seconds of the windows in which landmarks are smoothed
CUT = 30.0  # mean difference of two small frames, in grey levels, from which they are different shots


@dataclass(eq=False)
class Track:
    """One face through consecutive frames."""

    start: int  # its first frame
    boxes: np.ndarray  # (n, 4) frame pixels
    landmarks: np.ndarray  # (n, 5, 2) frame pixels
    scores: np.ndarray  # (n,), 0 where the face was not found and lies between its neighbours

    @property
    def stop(self) -> int:
        """The frame after its last."""
        return self.start + len(self.boxes)

    def face(self, frame: int) -> Face:
        """The face in a frame of the video."""
        place = frame - self.start
        return Face(self.boxes[place], self.landmarks[place], float(self.scores[place]))

    def area(self) -> float:
        """Sum of its boxes' areas, in pixels: what it shows, and for how long."""
        return float(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1).sum())


def track(found: list[list[Face]], cuts: list[bool], rate: float) -> list[Track]:
    """Link the faces of each frame.

    Parameters
    ----------
    found:
        The faces of each frame.
    cuts:
        Whether a new shot begins with a frame: no track goes across.
    rate:
        Frames a second.
    """
    gap = max(1, round(GAP * rate))
    living: list[dict[int, Face]] = []
    ended: list[dict[int, Face]] = []
    for frame, faces in enumerate(found):
        if cuts[frame]:
            ended += living
            living = []
        ended += [one for one in living if frame - next(reversed(one)) > gap]
        living = [one for one in living if frame - next(reversed(one)) <= gap]
        pairs = sorted(
            ((_likeness(one, face, frame), a, b) for a, one in enumerate(living) for b, face in enumerate(faces)),
            key=lambda pair: -pair[0],
        )
        used: tuple[set[int], set[int]] = set(), set()
        for likeness, a, b in pairs:
            if likeness >= LINK and a not in used[0] and b not in used[1]:
                living[a][frame] = faces[b]
                used[0].add(a)
                used[1].add(b)
        living += [{frame: face} for b, face in enumerate(faces) if b not in used[1]]
    made = [_bridged(one) for one in [*ended, *living]]
    return sorted(made, key=lambda each: (each.start, each.boxes[0, 0]))


def _likeness(one: dict[int, Face], face: Face, frame: int) -> float:
    """Overlap of a face and where a track's would be if it went on as between its last two frames."""
    last, *before = islice(reversed(one), 2)  # its frames rise
    box = one[last].box
    if before and frame - last <= 2:
        box = box + (box - one[before[0]].box) * (frame - last) / (last - before[0])
    return overlap(box, face.box)


def _bridged(one: dict[int, Face]) -> Track:
    """A track without gaps: between two frames values lie on a line."""
    frames = np.array(list(one))
    every = np.arange(frames[0], frames[-1] + 1)
    rows = [np.concatenate([face.box, face.landmarks.reshape(-1)]) for face in one.values()]
    values = np.stack(rows).astype(np.float64)
    filled = np.stack([np.interp(every, frames, column) for column in values.T], axis=1)
    scores = np.zeros(len(every))
    scores[frames - frames[0]] = [face.score for face in one.values()]
    return Track(int(frames[0]), filled[:, :4], filled[:, 4:].reshape(-1, 5, 2), scores)


def smooth(one: Track, rate: float) -> Track:
    """The track with landmarks that do not tremble and do not lag.

    A parabola is fitted to each coordinate in a short window around each frame (Savitzky and Golay, Analytical
    Chemistry 1964): steady motion stays as it is. Where smoother curves agree with it up to the detector's own noise,
    they take its place: a parabola in a long window, and the mean there, which is where a resting face is. Near the
    ends of a track windows are cut off, not moved.
    """
    values = np.concatenate([one.boxes, one.landmarks.reshape(len(one.boxes), -1)], axis=1)
    smoothed = short = _fitted(values, SHORT * rate, 2)
    noise = np.sqrt(np.mean((values - short)[:, 4:] ** 2)) + 1e-6
    for degree in (2, 0):
        smoother = _fitted(values, LONG * rate, degree)
        apart = np.sqrt(np.mean((smoother - short)[:, 4:] ** 2, axis=1, keepdims=True))
        share = np.exp(-((apart / (2 * noise)) ** 4))
        smoothed = smoothed + share * (smoother - smoothed)
    return Track(one.start, smoothed[:, :4], smoothed[:, 4:].reshape(-1, 5, 2), one.scores)


def _fitted(values: np.ndarray, window: float, degree: int) -> np.ndarray:
    """Values (n, k) at the middle of polynomials fitted to windows of so many frames."""
    # scipy's savgol_filter is equal inside, but moves or pads windows at the ends and refuses tracks shorter than one.
    half = max(1, round(window / 2))
    fitted = np.empty_like(values)
    for place in range(len(values)):
        low, high = max(0, place - half), min(len(values), place + half + 1)
        times = (np.arange(low, high) - place) / half
        powers = np.vander(times, min(degree, len(times) - 1) + 1, increasing=True)
        fitted[place] = np.linalg.lstsq(powers, values[low:high], rcond=None)[0][0]
    return fitted
