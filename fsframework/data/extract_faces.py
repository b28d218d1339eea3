"""Faces of one file: found, measured and kept as crops with a record, independently of all other files.

What was found in a file is a folder, which appears whole or not at all and is named by the SHA-256 of the file's
content: 0.png, 1.png, ... (or .webp, see `Wanted.suffix`) and record.npz. Who finds it there need not look again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from fsframework.core.components import Detector, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.types import AlignedFace, FaceBatch
from fsframework.faces.align import align, transform
from fsframework.media.image_io import read_image, write_image
from fsframework.media.tensor import to_tensor
from fsframework.media.video_io import is_video, probe, read
from fsframework.utils.files import making, replacing, sha256_of

RECORD = "record.npz"
MEASURED = ("frames", "scores", "sharpness", "boxes", "landmarks", "matrices", "looks")  # columns of it


@dataclass(frozen=True)
class ExtractOptions:
    """Which faces are taken, and how."""

    size: int = 256  # side of the crops, in pixels
    smallest: float = 40.0  # side of the box, in pixels
    score: float = 0.9  # of the detector, 0 to 1
    sharpness: float = 0.0  # see `sharpness`
    every: float = 1.0  # seconds between frames of videos
    sharded: int | None = None  # crops of a shard; None: each is a file

    @property
    def suffix(self) -> str:
        """Of crops: PNG for people; WebP in shards, as lossless, half as large and read twice as fast."""
        return ".png" if self.sharded is None else ".webp"


@dataclass(frozen=True, eq=False)
class Record:
    """The faces of a file, a row for each, in the order in which they were found."""

    frames: np.ndarray  # (n,) of a video; 0 of a picture
    scores: np.ndarray  # (n,) of the detector
    sharpness: np.ndarray  # (n,)
    boxes: np.ndarray  # (n, 4)
    landmarks: np.ndarray  # (n, 10)
    matrices: np.ndarray  # (n, 6)
    looks: np.ndarray  # (n, 256) uint8, see `small`
    z_id: np.ndarray  # (n, D) float32, unit length
    problem: np.ndarray  # text: what is wrong with the file, which may break off after some faces
    source: np.ndarray  # text: what the problem calls the file

    @classmethod
    def read(cls, folder: Path) -> Self:
        with np.load(folder / RECORD) as arrays:
            return cls(**arrays)

    def write(self, folder: Path) -> None:
        with replacing(folder / RECORD) as temporary:
            np.savez(temporary, **vars(self))

    def problem_of(self, file: Path) -> UserError | None:
        """What is wrong with the file, or with another of the same content."""
        text, source = str(self.problem), str(self.source)
        return UserError(str(file) + text.removeprefix(source)) if text.startswith(source) and text else None


def folder_of(parts: Path, content: str) -> Path:
    """Where the faces of a file with this SHA-256 are kept."""
    return parts / content[:2] / content


@dataclass(frozen=True, eq=False)
class FaceFinder:
    """Keeps the faces of files, one at a time: what works for `fsf extract`."""

    detector: Detector
    encoder: IdentityEncoder
    device: Any
    wanted: ExtractOptions
    parts: Path

    def __call__(self, name: str) -> str:
        """Keep the faces of a file, unless they are kept, and give its SHA-256.

        Raises UserError if it cannot be hashed or kept. A file that cannot be understood gets a record that says so.
        """
        file = Path(name)
        try:
            content = sha256_of(file)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}; check the path") from error
        kept = folder_of(self.parts, content)
        if not (kept / RECORD).is_file():
            try:
                with making(kept) as folder:
                    self._find(file, folder).write(folder)
            except UserError:
                if not (kept / RECORD).is_file():  # another was not quicker
                    raise
        return content

    def _find(self, file: Path, folder: Path) -> Record:
        """Write the crops of a file, and say what they are."""
        rows: list[dict[str, Any]] = []
        z_id: list[np.ndarray] = []
        problems: list[str] = []
        for place, frame in _until_broken(_frames(file, self.wanted.every), problems):
            crops = self._faces(frame)
            for crop in crops:
                file_of_crop = folder / f"{len(rows)}{self.wanted.suffix}"
                write_image(file_of_crop, crop.image, synthetic=False, lossless=True)
                rows.append({"frames": place, **_measured(crop)})
            if crops:
                z_id.append(self._embed(crops))
        columns = {name: np.array([row[name] for row in rows]) for name in MEASURED}
        embeddings = np.concatenate(z_id) if z_id else np.zeros((0, 0), np.float32)
        return Record(**columns, z_id=embeddings, problem=np.array("".join(problems)), source=np.array(str(file)))

    def _faces(self, frame: np.ndarray) -> list[AlignedFace]:
        """The faces of a frame that are taken."""
        with torch.inference_mode():
            faces = self.detector([frame])[0]
        crops = []
        for face in faces:
            side = float(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
            if side < self.wanted.smallest or face.score < self.wanted.score:
                continue
            crop = align(frame, face, self.wanted.size)
            if sharpness(crop.image) >= self.wanted.sharpness:
                crops.append(crop)
        return crops

    def _embed(self, crops: list[AlignedFace]) -> np.ndarray:
        """Embeddings (n, D) of unit length."""
        image = to_tensor(np.stack([crop.image for crop in crops]))
        points = torch.from_numpy(np.stack([transform(crop.face.landmarks, crop.matrix) for crop in crops])).float()
        with torch.inference_mode():
            z_id = F.normalize(self.encoder(FaceBatch.of(image, points).to(self.device)).float(), dim=1)
        return z_id.cpu().numpy()


def _frames(file: Path, every: float) -> Iterator[tuple[int, np.ndarray]]:
    """A picture, or frames of a video so many seconds apart, with their places."""
    if not is_video(file):
        yield 0, read_image(file)
        return
    video = probe(file)
    seconds = [float((time - video.times[0]) * video.base) for time in video.times]
    due = 0.0
    for place, frame in enumerate(read(video)):
        if seconds[place] >= due - 1e-6:
            due = seconds[place] + every
            yield place, frame


def _until_broken(frames: Iterator[tuple[int, np.ndarray]], problems: list[str]) -> Iterator[tuple[int, np.ndarray]]:
    """The same frames, as far as they can be read; what is wrong with the next one is noted."""
    try:
        yield from frames
    except UserError as error:
        problems.append(str(error))


def _measured(crop: AlignedFace) -> dict[str, Any]:
    """A row of a record, but for the frame."""
    return {
        "scores": crop.face.score,
        "sharpness": sharpness(crop.image),
        "boxes": crop.face.box,
        "landmarks": crop.face.landmarks.reshape(-1),
        "matrices": crop.matrix.reshape(-1),
        "looks": small(crop.image).astype(np.uint8),
    }


def small(image: np.ndarray) -> np.ndarray:
    """What a crop looks like: 16x16 grey levels (256,) int16."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    return grey.reshape(-1).astype(np.int16)


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of the Laplacian of a crop's grey levels, at 128 px; blurred faces have less than 5."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey.astype(np.float32), cv2.CV_32F).std())
