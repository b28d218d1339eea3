"""Who is who from frame to frame: the faces of a video as tracks, one for each appearance, with steady landmarks."""

from dataclasses import dataclass

import numpy as np

from fsframework.faces_in_video import overlap
from fsframework.types import Face

LINK = 0.25  # intersection over union from which a face goes on a track
GAP = 0.4  # seconds without a face that a track bridges
WINDOW = 0.36  # seconds of the window in which landmarks are smoothed
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
        ended += [one for one in living if frame - max(one) > gap]
        living = [one for one in living if frame - max(one) <= gap]
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
    frames = sorted(one)[-2:]
    last = one[frames[-1]].box
    if len(frames) == 2 and frame - frames[-1] <= 2:
        last = last + (last - one[frames[0]].box) * (frame - frames[-1]) / (frames[-1] - frames[0])
    return overlap(last, face.box)


def _bridged(one: dict[int, Face]) -> Track:
    """A track without gaps: between two frames values lie on a line."""
    frames = np.array(sorted(one))
    every = np.arange(frames[0], frames[-1] + 1)
    values = np.stack([np.concatenate([one[f].box, one[f].landmarks.reshape(-1)]) for f in frames]).astype(np.float64)
    filled = np.stack([np.interp(every, frames, column) for column in values.T], axis=1)
    scores = np.zeros(len(every))
    scores[frames - frames[0]] = [one[f].score for f in frames]
    return Track(int(frames[0]), filled[:, :4], filled[:, 4:].reshape(-1, 5, 2), scores)


def smooth(one: Track, rate: float) -> Track:
    """The track with landmarks that do not tremble and do not lag.

    A parabola is fitted to each coordinate in a window around each frame (Savitzky and Golay, Analytical Chemistry
    1964): steady motion stays as it is. Near the ends of a track the window is cut off, not moved.
    """
    half = max(1, round(WINDOW * rate / 2))
    values = np.concatenate([one.boxes, one.landmarks.reshape(len(one.boxes), -1)], axis=1)
    smoothed = np.empty_like(values)
    for place in range(len(values)):
        low, high = max(0, place - half), min(len(values), place + half + 1)
        times = np.arange(low, high) - place
        degree = min(2, len(times) - 1)
        powers = np.vander(times, degree + 1, increasing=True)
        smoothed[place] = np.linalg.lstsq(powers, values[low:high], rcond=None)[0][0]
    return Track(one.start, smoothed[:, :4], smoothed[:, 4:].reshape(-1, 5, 2), one.scores)
