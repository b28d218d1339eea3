"""Find the faces of a video, and cache them in the folder of its job, also while the search goes on.

The cache is faces.npz: detections, thumbnails and beginnings of shots of the frames that were searched, and the state
of the search. Its key is a hash of the target's content and of the detector, so that other options and sources of a
job keep it.
"""

import hashlib
import json
import sys
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch

from fsframework.core.components import Detector
from fsframework.core.types import Face
from fsframework.faces.detect_video import Scan, SearchState, find_faces
from fsframework.faces.track import CUT, thumbnail
from fsframework.media.animation_io import read
from fsframework.media.video_io import Video
from fsframework.utils.files import replacing
from fsframework.utils.prefetch import ahead
from fsframework.utils.progress import progress
from fsframework.utils.weights import digest

FILE = "faces.npz"
FORMAT = 4  # of the file and of the search; those of another format are not used
SAVE = 10.0  # seconds from one writing of the file to the next
BROKEN = (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass
class FoundFaces:
    """The faces of the frames of a video, or of those before `state.frame`."""

    detections: list[list[Face]] = field(default_factory=list)
    thumbnails: list[list[np.ndarray]] = field(default_factory=list)
    cuts: list[bool] = field(default_factory=list)  # whether each frame begins a shot
    state: SearchState = field(default_factory=SearchState)

    def write(self, file: Path, key: str, count: int) -> None:
        """Write the faces of the first frames, and the state from which the search goes on, atomically."""
        scan = self.state.scan or Scan([], [])
        with replacing(file) as temporary:
            np.savez(
                temporary,
                key=np.array(key),
                faces=_rows(self.detections[:count]),
                thumbnails=np.array([each for faces in self.thumbnails[:count] for each in faces], dtype=np.uint8),
                cuts=np.array(self.cuts[: count + 1], dtype=bool),
                scan=_rows([scan.faces, scan.rejected]),
                state=np.array(
                    [count, self.state.frame, scan.wait, scan.pause, _number(self.state.doubtful)], dtype=np.int64
                ),
            )

    @classmethod
    def read(cls, file: Path, key: str) -> Self | None:
        """Return the faces of a file, or None if its key differs. Raise one of `BROKEN` if it is broken."""
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            count, frame, wait, pause, doubtful = arrays["state"].tolist()
            detections, cuts = _faces(arrays["faces"], count), arrays["cuts"].tolist()
            pictures = iter(arrays["thumbnails"])
            thumbnails = [[next(pictures) for _ in faces] for faces in detections]
            faces, rejected = _faces(arrays["scan"], 2)
            scan = Scan(faces, rejected, wait, pause)
        if not 0 <= frame <= count <= len(cuts) or next(pictures, None) is not None:
            raise ValueError("the numbers of frames differ")
        return cls(detections, thumbnails, cuts, SearchState(frame, scan, None if doubtful < 0 else doubtful))


def detector_key(detector: Detector, content: str) -> str:
    """Return a hash of a detector, with its options and weights, and of a target's content, a SHA-256."""
    options = detector.options.model_dump(mode="json")
    facts = [FORMAT, type(detector).__name__, options, digest(detector), content]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def found_faces(detector: Detector, video: Video, folder: Path | None, content: str) -> FoundFaces:
    """Return the faces of all frames of a video.

    Parameters
    ----------
    detector:
        The detector.
    video:
        The video.
    folder:
        Where the faces are cached; None: nowhere.
    content:
        The SHA-256 of the video's file; it is not needed without a folder.
    """
    total = len(video.times)
    file = None if folder is None else folder / FILE
    key = "" if file is None else detector_key(detector, content)
    found = FoundFaces() if file is None else _cached(file, key, total)
    if len(found.detections) == total:
        return found
    saved = time.monotonic()
    first = found.state.frame
    with progress("finding faces", total, "frames", first) as ticker, torch.inference_mode():
        waiting: deque[np.ndarray] = deque()  # frames that are searched in a group
        frames = _with_cuts(ahead(read(video, first, rough=True), 16), found.cuts, first, waiting)
        for faces in find_faces(detector, frames, found.state, found.cuts):
            number = len(found.detections)
            if file is not None and number == found.state.frame > first and time.monotonic() - saved > SAVE:
                found.write(file, key, number)
                saved = time.monotonic()
            frame = waiting.popleft()
            found.detections.append(faces)
            found.thumbnails.append([thumbnail(frame, face) for face in faces])
            ticker.advance()
    if file is not None:
        found.write(file, key, len(found.detections))
    return found


def _cached(file: Path, key: str, total: int) -> FoundFaces:
    """Return the faces of a file; none, with a line on standard error, if it is broken or of another search."""
    if not file.exists():
        return FoundFaces()
    try:
        found = FoundFaces.read(file, key)
        if found is not None and len(found.detections) <= total:
            return found
        reason = "is of another target or detector"
    except BROKEN:
        reason = "cannot be read"
    print(f"note: {file}: {reason}; the faces are found anew", file=sys.stderr)
    return FoundFaces()


def _with_cuts(
    frames: Iterable[np.ndarray], cuts: list[bool], first: int, waiting: deque[np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield frames, the first of number `first`, and append them to `waiting`.

    Whether each begins a shot is appended to `cuts`, which has those of earlier frames, and maybe of the first.
    """
    before = None
    for number, frame in enumerate(frames, first):
        small = cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
        if number == len(cuts):
            cuts.append(before is not None and float(np.abs(small - before).mean()) > CUT)
        before = small
        waiting.append(frame)
        yield frame


def _number(frame: int | None) -> int:
    return -1 if frame is None else frame


def _rows(detections: list[list[Face]]) -> np.ndarray:
    """Return faces as rows (n, 16): number of the list, box, landmarks, score."""
    rows = [
        [number, *face.box, *face.landmarks.reshape(-1), face.score]
        for number, faces in enumerate(detections)
        for face in faces
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 16)


def _faces(rows: np.ndarray, count: int) -> list[list[Face]]:
    """Return so many lists of faces, by their rows."""
    faces: list[list[Face]] = [[] for _ in range(count)]
    for row in rows:
        faces[int(row[0])].append(Face(row[1:5], row[5:15].reshape(5, 2), float(row[15])))
    return faces
