"""Detect the faces of one file and cache their crops with a record, independently of all other files.

The cache entry of a file is a folder, written atomically and named by the SHA-256 of the file's content: 0.png, 1.png,
... (or .webp, see `ExtractOptions.suffix`) and record.npz. A file with an existing entry is not processed again.
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
from fsframework.faces.turned import find_at_any_angle
from fsframework.faces.visible import without_cut
from fsframework.media.animation_io import is_film, probe, read
from fsframework.media.image_io import read_image, write_image
from fsframework.media.tensor import to_tensor
from fsframework.utils.files import making, replacing, sha256_of

RECORD = "record.npz"
MEASURED = (
    "frames",
    "scores",
    "sharpness",
    "boxes",
    "landmarks",
    "matrices",
    "looks",
)  # columns of the record that are measured for each face


@dataclass(frozen=True)
class ExtractOptions:
    """Which faces are extracted, and how."""

    size: int = 256  # side of the crops, in pixels
    smallest: float = 40.0  # minimum side of the box, in pixels
    score: float = 0.9  # minimum score of the detector, 0 to 1
    sharpness: float = 0.0  # minimum `sharpness`
    every: float = 1.0  # seconds between frames of videos
    sharded: int | None = None  # crops in each webdataset shard; None: one file for each crop

    @property
    def suffix(self) -> str:
        """Return the crops' suffix: .png, or .webp in shards: lossless, half as large and decoded twice as fast."""
        return ".png" if self.sharded is None else ".webp"


@dataclass(frozen=True, eq=False)
class Record:
    """The faces of a file, a row for each, in the order of detection."""

    frames: np.ndarray  # (n,) frame index in a video; 0 in an image
    scores: np.ndarray  # (n,) scores of the detector
    sharpness: np.ndarray  # (n,)
    boxes: np.ndarray  # (n, 4)
    landmarks: np.ndarray  # (n, 10)
    matrices: np.ndarray  # (n, 6)
    looks: np.ndarray  # (n, 256) uint8, thumbnails by `small`
    z_id: np.ndarray  # (n, D) float32, unit length
    cut: np.ndarray  # number of faces that are left out because the frame cuts them
    problem: np.ndarray  # text: the error, if the file is unreadable, wholly or after some faces
    source: np.ndarray  # text: the file's path in `problem`

    @classmethod
    def read(cls, folder: Path) -> Self:
        with np.load(folder / RECORD) as arrays:
            return cls(**arrays)

    def write(self, folder: Path) -> None:
        with replacing(folder / RECORD) as temporary:
            np.savez(temporary, **vars(self))

    def problem_of(self, file: Path) -> UserError | None:
        """Return the error of the file, or of another with the same content, with this path; None if readable."""
        text, source = str(self.problem), str(self.source)
        return UserError(str(file) + text.removeprefix(source)) if text.startswith(source) and text else None


def folder_of(parts: Path, content: str) -> Path:
    """Return the cache folder of a file with this SHA-256."""
    return parts / content[:2] / content


@dataclass(frozen=True, eq=False)
class FaceFinder:
    """The worker of `fsf extract`: caches the faces of one file at a time."""

    detector: Detector
    encoder: IdentityEncoder
    device: Any
    options: ExtractOptions
    parts: Path

    def __call__(self, name: str) -> str:
        """Cache the faces of a file, unless they are cached already, and return its SHA-256.

        A file that cannot be decoded gets a record with the error.

        Raises
        ------
        UserError
            The file cannot be hashed, or its faces cannot be cached.
        """
        file = Path(name)
        try:
            content = sha256_of(file)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}; check the path") from error
        cached = folder_of(self.parts, content)
        if not (cached / RECORD).is_file():
            try:
                with making(cached) as folder:
                    self._find(file, folder).write(folder)
            except UserError:
                if not (cached / RECORD).is_file():  # no other process cached it meanwhile
                    raise
        return content

    def _find(self, file: Path, folder: Path) -> Record:
        """Write the crops of a file and return their record."""
        rows: list[dict[str, Any]] = []
        z_id: list[np.ndarray] = []
        problems: list[str] = []
        cut = 0
        for index, frame in _readable(_frames(file, self.options.every), problems):
            crops, left_out = self._faces(frame)
            cut += left_out
            for crop in crops:
                file_of_crop = folder / f"{len(rows)}{self.options.suffix}"
                write_image(file_of_crop, crop.image, synthetic=False, lossless=True)
                rows.append({"frames": index, **_measured(crop)})
            if crops:
                z_id.append(self._embed(crops))
        columns = {name: np.array([row[name] for row in rows]) for name in MEASURED}
        embeddings = np.concatenate(z_id) if z_id else np.zeros((0, 0), np.float32)
        texts = {"problem": np.array("".join(problems)), "source": np.array(str(file))}
        return Record(**columns, z_id=embeddings, cut=np.array(cut), **texts)

    def _faces(self, frame: np.ndarray) -> tuple[list[AlignedFace], int]:
        """Return the aligned faces of a frame that meet the options, and how many others the frame cuts."""
        with torch.inference_mode():
            found = find_at_any_angle(self.detector, frame).faces
        faces, cut = without_cut(found, (frame.shape[1], frame.shape[0]))
        crops = []
        for face in faces:
            side = float(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
            if side < self.options.smallest or face.score < self.options.score:
                continue
            crop = align(frame, face, self.options.size)
            if sharpness(crop.image) >= self.options.sharpness:
                crops.append(crop)
        return crops, len(cut)

    def _embed(self, crops: list[AlignedFace]) -> np.ndarray:
        """Return embeddings (n, D) of unit length."""
        image = to_tensor(np.stack([crop.image for crop in crops]))
        points = torch.from_numpy(np.stack([transform(crop.face.landmarks, crop.matrix) for crop in crops])).float()
        with torch.inference_mode():
            z_id = F.normalize(self.encoder(FaceBatch.of(image, points).to(self.device)).float(), dim=1)
        return z_id.cpu().numpy()


def _frames(file: Path, every: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield an image, or frames of a video `every` seconds apart, with their indices."""
    if not is_film(file):
        yield 0, read_image(file)
        return
    video = probe(file)
    seconds = [float((time - video.times[0]) * video.base) for time in video.times]
    due = 0.0
    for index, frame in enumerate(read(video)):
        if seconds[index] >= due - 1e-6:
            due = seconds[index] + every
            yield index, frame


def _readable(frames: Iterator[tuple[int, np.ndarray]], problems: list[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the frames up to the first unreadable one, whose error is appended to `problems`."""
    try:
        yield from frames
    except UserError as error:
        problems.append(str(error))


def _measured(crop: AlignedFace) -> dict[str, Any]:
    """Return a row of the record, except the frame index and the embedding."""
    return {
        "scores": crop.face.score,
        "sharpness": sharpness(crop.image),
        "boxes": crop.face.box,
        "landmarks": crop.face.landmarks.reshape(-1),
        "matrices": crop.matrix.reshape(-1),
        "looks": small(crop.image).astype(np.uint8),
    }


def small(image: np.ndarray) -> np.ndarray:
    """Return a thumbnail of a crop: 16x16 grey levels (256,) int16."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    return grey.reshape(-1).astype(np.int16)


def sharpness(image: np.ndarray) -> float:
    """Return the standard deviation of the Laplacian of grey levels at 128 px; blurred faces have less than 5."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey.astype(np.float32), cv2.CV_32F).std())
