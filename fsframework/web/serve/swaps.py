"""The work behind the answers, on files that were received. One thread does it, one request after the other."""

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
from fsframework.media.image_io import read_image, usual_suffix, write_image
from fsframework.media.tensor import to_tensor
from fsframework.provenance.options import ProvenanceOptions, mark_frame
from fsframework.provenance.verify import MEANINGS, verify
from fsframework.web.serve.queue import Limits
from fsframework.web.serve.schemas import Details, FoundFace, FoundFaces, Info, SwappedFace, SwapRequest, Verification

SIDE = 256  # pixels of the crops that are shown; a watermark fits
SHOWN = 8  # faces at most
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
Swap = tuple[Face, SourceIdentity]


@dataclass(frozen=True, eq=False)
class Made:
    """A marked file, and what it was made of."""

    file: Path
    swapped: SwappedImage
    marking: ProvenanceOptions
    source_frame: np.ndarray  # (H, W, 3) uint8
    numbered: Sequence[tuple[int, Swap]]  # from left to right
    seconds: float


class Work:
    """What a server can do with pictures.

    Parameters
    ----------
    converter:
        Swaps.
    limits:
        Pixels and faces beyond which pictures are refused.
    """

    def __init__(self, converter: FaceSwapper, limits: Limits) -> None:
        self.converter = converter
        self.limits = limits
        self._pose = part("estimators", "pnp").build()
        self._pose.load()
        self._pose.to(converter.device).eval()

    def info(self) -> Info:
        """What this server is and takes."""
        limits = self.limits
        return Info(
            model=self.converter.model,
            size=self.converter.size,
            version=metadata.version("fsframework"),
            weights_sha256=self.converter.weights_sha256,
            file_bytes=limits.file_bytes,
            pixels=limits.pixels,
            seconds=limits.seconds,
            waiting=limits.waiting,
            faces=limits.faces,
        )

    def faces(self, file: Path) -> FoundFaces:
        """The faces of a picture. Raises UserError if it cannot be read or shows none."""
        frame = self._read(file)
        faces = self.converter.find(frame, file.name)
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
        )

    def swap(self, folder: Path, wanted: SwapRequest) -> Made:
        """Swap the pictures `source` and `target` of a folder into a file there, marked.

        Raises UserError if one of them cannot be read or shows no such face, if the target has too many, or if the
        result cannot be signed.
        """
        began = time.monotonic()
        marking = ProvenanceOptions(label=wanted.label, consent=wanted.consent)
        source_frame, target_frame = self._read(folder / "source"), self._read(folder / "target")
        source = self.converter.source(source_frame, "source", wanted.source_face)
        source_file, target_file = _named(folder / "source"), _named(folder / "target")
        assignment = FaceAssignment(wanted.face, replace(source, path=source_file))
        out = folder / f"swap{SUFFIXES[wanted.format]}"
        max_faces = self.limits.faces
        swapped = swap_image(self.converter, assignment, target_file, out, marking, target_frame, "target", max_faces)
        from_left = _from_left(swapped.faces)
        numbered = sorted(((from_left.index(swap[0]) + 1, swap) for swap in swapped.swaps), key=lambda each: each[0])
        return Made(out, swapped, marking, source_frame, numbered, time.monotonic() - began)

    def details(self, folder: Path, wanted: SwapRequest) -> Details:
        """The same, with what was seen on the way."""
        made = self.swap(folder, wanted)
        swapped = made.swapped
        height, width = swapped.image.shape[:2]
        shown = made.numbered[:SHOWN]
        swaps = [swap for _, swap in shown]
        faces = [face for face, _ in swaps]
        source_face = choose(self.converter.find(made.source_frame, "source"), wanted.source_face, "source")[0]
        before, after = self._crops(swapped.frame, faces), self._crops(swapped.image, faces)
        z_source = swaps[0][1].z_id
        z_after, z_before = (self.converter.embed(frame, faces) for frame in (swapped.image, swapped.frame))
        poses = self._pose_distances(before, after)
        pasted = self.converter.crops(swapped.frame, swaps)
        return Details(
            result=_encoded(made.file),
            type=f"image/{wanted.format}",
            file_name=made.file.name,
            width=width,
            height=height,
            seconds=round(made.seconds, 3),
            source=_png(folder, self._crops(made.source_frame, [source_face])[0]),
            faces=[
                SwappedFace(
                    number=number,
                    box=_box(face),
                    cosine_to_source=_cosine(z_after[place], z_source[0]),
                    cosine_to_target=_cosine(z_after[place], z_before[place]),
                    pose_degrees=poses[place],
                    target=_png(folder, before[place]),
                    swap=_png(folder, mark_frame(after[place], made.marking, swapped.record.watermark), synthetic=True),
                    mask=_png(folder, _grey(pasted[place][2])),
                    matrix=[(float(a), float(b), float(c)) for a, b, c in pasted[place][0].matrix],
                )
                for place, (number, (face, _)) in enumerate(shown)
            ],
        )

    def verify(self, file: Path) -> Verification:
        """What a picture says of itself. Raises UserError if it cannot be read as a picture."""
        self._read(file)
        report = verify(_named(file))
        said = report.plain()
        return Verification(
            verdict=report.verdict,
            meaning=MEANINGS[report.verdict],
            manifest=said["manifest"],
            xmp=report.xmp,
            watermark=said["watermark"],
            ledger_entries=[{key: value for key, value in entry.items() if key != "file"} for entry in report.ledger],
            notes=report.notes,
        )

    def _read(self, file: Path) -> np.ndarray:
        return read_image(file, file.name, self.limits.pixels)

    def _crops(self, frame: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
        """Aligned crops (n, SIDE, SIDE, 3) uint8."""
        return np.stack([align(frame, face, SIDE).image for face in faces])

    def _pose_distances(self, before: np.ndarray, after: np.ndarray) -> list[float | None]:
        with torch.inference_mode():
            poses = [self._pose(FaceBatch.of(to_tensor(crops)).to(self.converter.device)) for crops in (before, after)]
        distances = (poses[0] - poses[1]).norm(dim=1).tolist()
        return [round(each, 2) if np.isfinite(each) else None for each in distances]


def _from_left(faces: Sequence[Face]) -> list[Face]:
    """As `conversion.choose` counts."""
    return sorted(faces, key=lambda face: face.box[0] + face.box[2])


def _box(face: Face) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(edge), 2) for edge in face.box)
    return left, top, right, bottom


def _cosine(one: Tensor, other: Tensor) -> float:
    return round(float(F.cosine_similarity(one.float(), other.float(), dim=0)), 4)


def _grey(mask: np.ndarray) -> np.ndarray:
    """A mask (S, S) 0..1 as a picture (S, S, 3) uint8."""
    levels = np.rint(mask.clip(0, 1) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2)


def _named(file: Path) -> Path:
    """A picture with the suffix of its format, by which C2PA's library knows what it reads."""
    named = file.with_suffix(usual_suffix(file))
    return file.replace(named)


def _png(folder: Path, image: np.ndarray, synthetic: bool = False) -> str:
    """A picture (H, W, 3) uint8 as PNG in base64."""
    place = folder / "crop.png"
    write_image(place, image, synthetic=synthetic)
    return _encoded(place)


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
