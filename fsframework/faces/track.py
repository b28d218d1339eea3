"""Track the faces of a video: one track per appearance, with smoothed landmarks.

Boxes alone do not show that two frames have the same face: at a cut inside one room, or where people cross, the next
face may be another person's. Such links are doubtful, and a track has parts between them.
"""

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import cv2
import numpy as np

from fsframework.core.types import Face
from fsframework.faces.detect_video import overlap

LINK = 0.25  # least intersection over union that links a face to a track
GAP = 0.4  # longest gap that a track bridges, in seconds
SHORT, LONG = 0.36, 1.2  # windows of smoothing, in seconds
CLOSE = 0.5  # intersection over union below which a link is a jump, and doubtful
RIVAL = 0.1  # least intersection over union of a link with another face that makes both doubtful
THUMBNAIL = 16  # side of the small grey pictures of faces, in pixels
CHANGE = 0.04, 0.12  # changes of thumbnails, as 1 - correlation, that never and always make a link doubtful
UNUSUAL = 4.0  # between them a link is doubtful if it is so many times the median of the track's last changes
MEMORY = 12  # changes in that median
CUT = 30.0  # least mean difference of two small frames, in grey levels, of different shots


@dataclass(eq=False)
class Track:
    """One face in consecutive frames."""

    start: int  # index of the first frame
    boxes: np.ndarray  # (n, 4) frame pixels
    landmarks: np.ndarray  # (n, 5, 2) frame pixels
    scores: np.ndarray  # (n,), 0 where the face was not detected and is interpolated
    doubts: tuple[int, ...] = ()  # frames of the video from which the track may show another person
    shown: np.ndarray | None = None  # (n,) bool, whether the frame shows enough of the face; None: it always does
    unseen: frozenset[int] = frozenset()  # interpolated frames of the video in which the face is not seen

    @property
    def stop(self) -> int:
        """Return the index after the last frame."""
        return self.start + len(self.boxes)

    def face(self, frame: int) -> Face:
        """Return the face in a frame of the video."""
        index = frame - self.start
        return Face(self.boxes[index], self.landmarks[index], float(self.scores[index]))

    def is_shown(self, frame: int) -> bool:
        """Return whether a frame of the video shows the track's face, and enough of it."""
        if not self.start <= frame < self.stop or frame in self.unseen:
            return False
        return self.shown is None or bool(self.shown[frame - self.start])

    def shown_frames(self) -> list[int]:
        """Return the frames of the video in which enough of the face is visible."""
        return [frame for frame in range(self.start, self.stop) if self.is_shown(frame)]

    def cut_frames(self) -> list[int]:
        """Return the frames of the video in which the track is, but the frame cuts too much of the face."""
        return [] if self.shown is None else [self.start + int(index) for index in np.flatnonzero(~self.shown)]

    def largest(self) -> Face:
        """Return the face with the largest box."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return self.face(self.start + int(areas.argmax()))

    def area(self) -> float:
        """Return the sum of the boxes' areas, in pixels."""
        return float(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1).sum())

    def parts(self) -> list["Track"]:
        """Return the parts between doubtful links, without interpolated frames at their ends."""
        bounds = [self.start, *self.doubts, self.stop]
        return [self.between(first, stop) for first, stop in pairwise(bounds)]

    def between(self, first: int, stop: int) -> "Track":
        """Return the track from a frame to the last detected one before another frame."""
        scores = self.scores[first - self.start : stop - self.start]
        rows = slice(first - self.start, first - self.start + int(np.flatnonzero(scores)[-1]) + 1)
        doubts = tuple(frame for frame in self.doubts if first < frame < stop)
        return Track(first, self.boxes[rows], self.landmarks[rows], self.scores[rows], doubts)


def thumbnail(frame: np.ndarray, face: Face) -> np.ndarray:
    """Return the aligned picture (THUMBNAIL, THUMBNAIL) uint8 of a face in a frame (H, W, 3) uint8: its green channel.

    The middles of eyes and mouth are at fixed places, so that the box's jitter and the head's tilt change little.
    """
    height, width = frame.shape[:2]
    eyes, mouth = face.landmarks[:2].mean(axis=0), face.landmarks[3:].mean(axis=0)
    down = (mouth - eyes) if np.hypot(*(mouth - eyes)) > 1 else np.array([0.0, 1.0])
    centre, reach = (eyes + mouth) / 2, 1.2 * float(np.hypot(*down))  # half a side, which eyes and mouth are inside
    low = np.clip(np.floor(centre - 1.5 * reach).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(centre + 1.5 * reach).astype(int), low + 1, [width, height])
    inside = frame[low[1] : high[1], low[0] : high[0], 1]
    shrink = min(1.0, THUMBNAIL / reach)  # to twice the thumbnail's resolution first, so that nothing is skipped
    if shrink < 1:
        inside = cv2.resize(inside, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    across = np.array([down[1], -down[0]]) / np.hypot(*down)
    axes = np.stack([across, down / np.hypot(*down)], axis=1) * 2 * reach * shrink / THUMBNAIL  # frame per thumbnail
    corner = (centre - low + 0.5) * shrink - 0.5 - axes @ np.full(2, (THUMBNAIL - 1) / 2)
    matrix = np.concatenate([axes, corner[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (THUMBNAIL, THUMBNAIL)
    small: np.ndarray = cv2.warpAffine(inside, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return small


def track(
    detections: list[list[Face]],
    cuts: list[bool],
    rate: float,
    thumbnails: list[list[np.ndarray]] | None = None,
) -> list[Track]:
    """Link the faces of consecutive frames; return the tracks, in order of their first frames.

    Parameters
    ----------
    detections:
        The faces of each frame.
    cuts:
        Whether a frame begins a new shot; tracks end there.
    rate:
        Frames per second.
    thumbnails:
        The `thumbnail` of each face, by which links are doubtful where a face changes suddenly.
    """
    gap = max(1, round(GAP * rate))
    living: list[dict[int, Face]] = []
    ended: list[dict[int, Face]] = []
    doubts: dict[int, set[int]] = {}  # frames of doubtful links of each tracklet, by its id
    places: dict[int, dict[int, int]] = {}  # positions of its faces among the detections
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
        rivals = [(track_index, face_index) for score, track_index, face_index in pairs if score >= RIVAL]
        for score, track_index, face_index in pairs:
            if score >= LINK and track_index not in used[0] and face_index not in used[1]:
                tracklet = living[track_index]
                is_jump = score < CLOSE or frame - next(reversed(tracklet)) > 1
                is_rivalled = sum(track_index == one or face_index == other for one, other in rivals) > 1
                tracklet[frame] = faces[face_index]
                used[0].add(track_index)
                used[1].add(face_index)
                if is_jump or is_rivalled:
                    doubts.setdefault(id(tracklet), set()).add(frame)
                places.setdefault(id(tracklet), {})[frame] = face_index
        for face_index, face in enumerate(faces):
            if face_index not in used[1]:
                living.append({frame: face})
                places[id(living[-1])] = {frame: face_index}
    tracks = []
    for tracklet in [*ended, *living]:
        at = doubts.get(id(tracklet), set())
        if thumbnails is not None:
            at |= _sudden_changes({frame: thumbnails[frame][face] for frame, face in places[id(tracklet)].items()})
        tracks.append(replace(_interpolated(tracklet), doubts=tuple(sorted(at))))
    return sorted(tracks, key=lambda track: (track.start, track.boxes[0, 0]))


def _sudden_changes(thumbnails: dict[int, np.ndarray]) -> set[int]:
    """Return the frames of a track, by its thumbnails, in which the face changes much more than before."""
    frames = list(thumbnails)
    rows = np.stack([thumbnails[frame] for frame in frames]).reshape(len(frames), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    changes = 1 - (rows[1:] * rows[:-1]).sum(axis=1)
    recent: deque[float] = deque(maxlen=MEMORY)
    sudden = set()
    for frame, change in zip(frames[1:], changes, strict=True):
        if change > np.clip(UNUSUAL * float(np.median(recent or [0.0])), *CHANGE):
            sudden.add(frame)
        recent.append(float(change))
    return sudden


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
    return Track(one.start, smoothed[:, :4], smoothed[:, 4:].reshape(-1, 5, 2), one.scores, one.doubts)


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
