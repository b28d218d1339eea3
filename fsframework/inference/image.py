"""One image with its faces swapped: read, detect, select, swap, write marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.media.image_io import read_image
from fsframework.provenance.options import ProvenanceOptions, write_swap
from fsframework.provenance.record import ProvenanceRecord


@dataclass(frozen=True, eq=False)
class SwappedImage:
    """A swapped image before it was marked, and its parts."""

    frame: np.ndarray  # (H, W, 3) uint8, the target
    faces: Sequence[Face]  # all that were detected, best first
    swaps: Sequence[tuple[Face, SourceIdentity]]  # those that were swapped
    image: np.ndarray  # (H, W, 3) uint8
    record: ProvenanceRecord


def swap_image(
    face_swapper: FaceSwapper,
    assignment: FaceAssignment,
    target: Path,
    out: Path,
    provenance: ProvenanceOptions,
    frame: np.ndarray | None = None,
    name: str | None = None,
    max_faces: int | None = None,
) -> SwappedImage:
    """Write the image `target` with swapped faces to `out`, marked, in one step or not at all; return its parts.

    Parameters
    ----------
    face_swapper, assignment:
        Networks, and the source of each face.
    target, out:
        Any image; the suffix of `out` gives the format. `SwapJob.check` finds names that cannot be written.
    provenance:
        How the result is marked.
    frame:
        (H, W, 3) uint8, the target if it was read before.
    name:
        The target's name in errors; by default its path.
    max_faces:
        More faces are refused.

    Raises
    ------
    UserError
        The image cannot be read or shows no such face, or the result cannot be written or signed.
    """
    name = name or str(target)
    frame = read_image(target) if frame is None else frame
    faces = face_swapper.find(frame, name)
    swaps = assignment.of_faces(face_swapper, frame, faces, name)
    if max_faces is not None and len(swaps) > max_faces:
        raise UserError(f"{name}: shows {len(swaps)} faces, more than {max_faces}; choose one of them")
    image = face_swapper.swap_faces(frame, swaps)
    record = face_swapper.origin(provenance)
    write_swap(out, image, record, provenance, target, assignment.source_paths)
    return SwappedImage(frame, faces, swaps, image, record)
