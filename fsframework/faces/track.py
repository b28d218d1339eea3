"""Track the faces of a video: one track per appearance, with smoothed landmarks."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from fsframework.core.types import Face
from fsframework.faces.detect_video import overlap

LINK = 0.25  # least intersection over union that links a face to a track
GAP = 0.4  # longest gap that a track bridges, in seconds
SHORT, LONG = 0.36, 1.2  # windows of smoothing, in seconds
CUT = 30.0  # least mean difference of two small frames, in grey levels, of different shots


@dataclass(eq=False)
class Track:
    """One face in consecutive frames."""

    start: int  # index of the first frame
    boxes: np.ndarray  # (n, 4) frame pixels
    landmarks: np.ndarray  # (n, 5, 2) frame pixels
    scores: np.ndarray  # (n,), 0 where the face was not detected and is interpolated

    @property
    def stop(self) -> int:
        """Return the index after the last frame."""
        return self.start + len(self.boxes)

    def face(self, frame: int) -> Face:
        """Return the face in a frame of the video."""
        index = frame - self.start
        return Face(self.boxes[index], self.landmarks[index], float(self.scores[index]))

    def largest(self) -> Face:
        """Return the face with the largest box."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return self.face(self.start + int(areas.argmax()))

    def area(self) -> float:
        """Return the sum of the boxes' areas, in pixels."""
        return float(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1).sum())


def track(detections: list[list[Face]], cuts: list[bool], rate: float) -> list[Track]:
    """Link the faces of consecutive frames; return the tracks, in order of their first frames.

    Parameters
    ----------
    detections:
        The faces of each frame.
    cuts:
        Whether a frame begins a new shot; tracks end there.
    rate:
        Frames per second.
    """
    gap = max(1, round(GAP * rate))
    living: list[dict[int, Face]] = []
    ended: list[dict[int, Face]] = []
    for frame, faces in enumerate(detections):
        if cuts[frame]:
            ended += living
            living = []
        ended += [tracklet for tracklet in living if frame - next(reversed(tracklet)) > gap]
        living = [tracklet for tracklet in living if frame - next(reversed(tracklet)) <= gap]
        pairs = sorted(
            (
                (_predicted_overlap(tracklet, face, frame), track_index, face_index)
                for track_index, tracklet in enumerate(living)
                for face_index, face in enumerate(faces)
            ),
            key=lambda pair: -pair[0],
        )
        used: tuple[set[int], set[int]] = set(), set()
        for score, track_index, face_index in pairs:
            if score >= LINK and track_index not in used[0] and face_index not in used[1]:
                living[track_index][frame] = faces[face_index]
                used[0].add(track_index)
                used[1].add(face_index)
        living += [{frame: face} for face_index, face in enumerate(faces) if face_index not in used[1]]
    tracks = [_interpolated(tracklet) for tracklet in [*ended, *living]]
    return sorted(tracks, key=lambda track: (track.start, track.boxes[0, 0]))


def _predicted_overlap(track: dict[int, Face], face: Face, frame: int) -> float:
    """Return the intersection over union of a face and a track's box, extrapolated at constant velocity."""
    last, *previous = islice(reversed(track), 2)  # frames are in ascending order
    box = track[last].box
    if previous and frame - last <= 2:
        box = box + (box - track[previous[0]].box) * (frame - last) / (last - previous[0])
    return overlap(box, face.box)


def _interpolated(track: dict[int, Face]) -> Track:
    """Return a track without gaps, linearly interpolated."""
    frames = np.array(list(track))
    all_frames = np.arange(frames[0], frames[-1] + 1)
    rows = [np.concatenate([face.box, face.landmarks.reshape(-1)]) for face in track.values()]
    values = np.stack(rows).astype(np.float64)
    filled = np.stack([np.interp(all_frames, frames, column) for column in values.T], axis=1)
    scores = np.zeros(len(all_frames))
    scores[frames - frames[0]] = [face.score for face in track.values()]
    return Track(int(frames[0]), filled[:, :4], filled[:, 4:].reshape(-1, 5, 2), scores)


def smooth(one: Track, rate: float) -> Track:
    """Return the track with landmarks smoothed over time, without jitter and without lag.

    A parabola is fitted to each coordinate in a short window around each frame (Savitzky and Golay, Analytical
    Chemistry 1964), which preserves steady motion. Smoother curves replace it where they agree with it up to the
    detector's noise. These are a parabola in a long window, and the mean there, which is right for a face at rest. At
    the ends of a track windows are cut off, not moved.
    """
    values = np.concatenate([one.boxes, one.landmarks.reshape(len(one.boxes), -1)], axis=1)
    smoothed = short = _fitted(values, SHORT * rate, 2)
    noise = np.sqrt(np.mean((values - short)[:, 4:] ** 2)) + 1e-6
    for degree in (2, 0):
        smoother = _fitted(values, LONG * rate, degree)
        deviation = np.sqrt(np.mean((smoother - short)[:, 4:] ** 2, axis=1, keepdims=True))
        weight = np.exp(-((deviation / (2 * noise)) ** 4))
        smoothed = smoothed + weight * (smoother - smoothed)
    return Track(one.start, smoothed[:, :4], smoothed[:, 4:].reshape(-1, 5, 2), one.scores)


def _fitted(values: np.ndarray, window: float, degree: int) -> np.ndarray:
    """Return values (n, k) at the centres of polynomials fitted to windows of so many frames."""
    # scipy's savgol_filter is equal inside, but moves or pads windows at the ends and rejects tracks shorter than one.
    half = max(1, round(window / 2))
    fitted = np.empty_like(values)
    for index in range(len(values)):
        low, high = max(0, index - half), min(len(values), index + half + 1)
        times = (np.arange(low, high) - index) / half
        powers = np.vander(times, min(degree, len(times) - 1) + 1, increasing=True)
        fitted[index] = np.linalg.lstsq(powers, values[low:high], rcond=None)[0][0]
    return fitted
