"""Process uploaded files for the endpoints. One thread handles one request after the other."""

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.part import part
from fsframework.core.types import Face, FaceBatch
from fsframework.faces.align import align
from fsframework.faces.select import choose, largest
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.inference.image import SwappedImage, swap_image
from fsframework.inference.soft_swap import size_note
from fsframework.media.image_io import read_image, read_target, usual_suffix, write_image
from fsframework.media.tensor import to_tensor
from fsframework.provenance.options import ProvenanceOptions, mark_frame
from fsframework.provenance.verify import MEANINGS, verify
from fsframework.web.serve.queue import Limits
from fsframework.web.serve.schemas import Details, FoundFace, FoundFaces, Info, SwappedFace, SwapRequest, Verification

SIDE = 256  # pixels of the displayed crops; large enough for a watermark
SHOWN = 8  # maximum number of displayed faces
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
Swap = tuple[Face, SourceIdentity]


@dataclass(frozen=True, eq=False)
class WrittenSwap:
    """A written result with its intermediate values."""

    file: Path
    swapped: SwappedImage
    marking: ProvenanceOptions
    source_frame: np.ndarray  # (H, W, 3) uint8
    numbered: Sequence[tuple[int, Swap]]  # swapped faces with their numbers from left to right
    seconds: float
    notes: Sequence[str]  # on faces that are left out


class Work:
    """Detects, swaps and verifies uploaded images.

    Parameters
    ----------
    face_swapper:
        The networks.
    limits:
        The maximum numbers of pixels and faces.
    """

    def __init__(self, face_swapper: FaceSwapper, limits: Limits) -> None:
        self.face_swapper = face_swapper
        self.limits = limits
        self._pose = part("estimators", "pnp").build()
        self._pose.load()
        self._pose.to(face_swapper.device).eval()

    def info(self) -> Info:
        """Return the model and the limits of this server."""
        limits = self.limits
        return Info(
            model=self.face_swapper.model,
            size=self.face_swapper.size,
            version=metadata.version("fsframework"),
            weights_sha256=self.face_swapper.weights_sha256,
            file_bytes=limits.file_bytes,
            pixels=limits.pixels,
            seconds=limits.seconds,
            waiting=limits.waiting,
            faces=limits.faces,
        )

    def faces(self, file: Path) -> FoundFaces:
        """Return the faces of an image. Raise UserError if it cannot be read or has none."""
        frame = self._read(file)
        notes: list[str] = []
        faces = self.face_swapper.find(frame, file.name, notes)
        chosen = largest(faces)
        return FoundFaces(
            width=frame.shape[1],
            height=frame.shape[0],
            faces=[
                FoundFace(
                    number=number,
                    box=_box(face),
                    landmarks=[(round(float(x), 2), round(float(y), 2)) for x, y in face.landmarks],
                    score=round(face.score, 4),
                    largest=face is chosen,
                )
                for number, face in enumerate(_from_left(faces), start=1)
            ],
            note="; ".join(notes) or None,
        )

    def swap(self, folder: Path, request: SwapRequest) -> WrittenSwap:
        """Swap the images `source` and `target` of a folder, write the marked result there, and return it.

        Raises UserError if an image cannot be read or has no such face, the target has too many faces, or the
        result cannot be signed.
        """
        began = time.monotonic()
        marking = ProvenanceOptions(label=request.label, consent=request.consent)
        source_frame = self._read(folder / "source")
        target = read_target(folder / "target", "target", self.limits.pixels)
        source = self.face_swapper.source(source_frame, "source", request.source_face)
        source_file, target_file = _named(folder / "source"), _named(folder / "target")
        assignment = FaceAssignment(request.face, replace(source, path=source_file))
        out = folder / f"swap{SUFFIXES[request.format]}"
        max_faces = self.limits.faces
        notes: list[str] = []
        swapped = swap_image(
            self.face_swapper, assignment, target_file, out, marking, target, "target", max_faces, notes
        )
        from_left = _from_left(swapped.faces)
        numbered = sorted(((from_left.index(swap[0]) + 1, swap) for swap in swapped.swaps), key=lambda pair: pair[0])
        return WrittenSwap(out, swapped, marking, source_frame, numbered, time.monotonic() - began, notes)

    def details(self, folder: Path, request: SwapRequest) -> Details:
        """Swap as `swap` does and return the result with crops, masks and similarities for each face."""
        result = self.swap(folder, request)
        swapped = result.swapped
        height, width = swapped.image.shape[:2]
        displayed = result.numbered[:SHOWN]
        swaps = [swap for _, swap in displayed]
        faces = [face for face, _ in swaps]
        source_face = choose(self.face_swapper.find(result.source_frame, "source", []), request.source_face, "source")[
            0
        ]
        before, after = self._crops(swapped.frame, faces), self._crops(swapped.image, faces)
        z_source = swaps[0][1].z_id
        z_after, z_before = (self.face_swapper.embed(frame, faces) for frame in (swapped.image, swapped.frame))
        poses = self._pose_distances(before, after)
        pasted = self.face_swapper.crops(swapped.frame, swaps)
        size = size_note([face for face, _ in swapped.swaps], self.face_swapper.size)
        notes = [*([] if size is None else [size]), *result.notes]
        return Details(
            result=_encoded(result.file),
            type=f"image/{request.format}",
            file_name=result.file.name,
            width=width,
            height=height,
            seconds=round(result.seconds, 3),
            note="; ".join(notes) or None,
            source=_png(folder, self._crops(result.source_frame, [source_face])[0]),
            faces=[
                SwappedFace(
                    number=number,
                    box=_box(face),
                    cosine_to_source=_cosine(z_after[index], z_source[0]),
                    cosine_to_target=_cosine(z_after[index], z_before[index]),
                    pose_degrees=poses[index],
                    target=_png(folder, before[index]),
                    swap=_png(
                        folder, mark_frame(after[index], result.marking, swapped.record.watermark), synthetic=True
                    ),
                    mask=_png(folder, _grey(pasted[index][2])),
                    matrix=[(float(a), float(b), float(c)) for a, b, c in pasted[index][0].matrix],
                )
                for index, (number, (face, _)) in enumerate(displayed)
            ],
        )

    def verify(self, file: Path) -> Verification:
        """Return the provenance of an image. Raise UserError if it cannot be read."""
        self._read(file)
        report = verify(_named(file))
        values = report.plain()
        return Verification(
            verdict=report.verdict,
            meaning=MEANINGS[report.verdict],
            manifest=values["manifest"],
            xmp=report.xmp,
            watermark=values["watermark"],
            ledger_entries=[{key: value for key, value in entry.items() if key != "file"} for entry in report.ledger],
            notes=report.notes,
        )

    def _read(self, file: Path) -> np.ndarray:
        return read_image(file, file.name, self.limits.pixels)

    def _crops(self, frame: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
        """Return the aligned crops (n, SIDE, SIDE, 3) uint8 of faces."""
        return np.stack([align(frame, face, SIDE).image for face in faces])

    def _pose_distances(self, before: np.ndarray, after: np.ndarray) -> list[float | None]:
        with torch.inference_mode():
            poses = [
                self._pose(FaceBatch.of(to_tensor(crops)).to(self.face_swapper.device)) for crops in (before, after)
            ]
        distances = (poses[0] - poses[1]).norm(dim=1).tolist()
        return [round(distance, 2) if np.isfinite(distance) else None for distance in distances]


def _from_left(faces: Sequence[Face]) -> list[Face]:
    """Return faces in the order in which `choose` numbers them."""
    return sorted(faces, key=lambda face: face.box[0] + face.box[2])


def _box(face: Face) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(edge), 2) for edge in face.box)
    return left, top, right, bottom


def _cosine(one: Tensor, other: Tensor) -> float:
    return round(float(F.cosine_similarity(one.float(), other.float(), dim=0)), 4)


def _grey(mask: np.ndarray) -> np.ndarray:
    """Return a mask (S, S) in 0..1 as an image (S, S, 3) uint8."""
    levels = np.rint(mask.clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def _named(file: Path) -> Path:
    """Rename an image to the suffix of its format, which the C2PA library requires, and return its path."""
    named = file.with_suffix(usual_suffix(file))
    return file.replace(named)


def _png(folder: Path, image: np.ndarray, synthetic: bool = False) -> str:
    """Return an image (H, W, 3) uint8 as PNG in base64."""
    file = folder / "crop.png"
    write_image(file, image, synthetic=synthetic)
    return _encoded(file)


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
