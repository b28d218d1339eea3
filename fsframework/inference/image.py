"""Swap the faces of one image: read, detect, select, swap, write with provenance."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.media.image_io import TargetImage, read_target
from fsframework.provenance.options import ProvenanceOptions, write_swap
from fsframework.provenance.record import ProvenanceRecord


@dataclass(frozen=True, eq=False)
class SwappedImage:
    """A swapped image without provenance marks, and its intermediate results."""

    frame: np.ndarray  # (H, W, 3) uint8, the target
    faces: Sequence[Face]  # all detected faces, highest score first
    swaps: Sequence[tuple[Face, SourceIdentity]]  # the swapped faces with their sources
    image: np.ndarray  # (H, W, 3) uint8
    record: ProvenanceRecord
    notes: Sequence[str] = ()  # on faces that are left out


def swap_image(
    face_swapper: FaceSwapper,
    assignment: FaceAssignment,
    target: Path,
    out: Path,
    provenance: ProvenanceOptions,
    decoded: TargetImage | None = None,
    name: str | None = None,
    max_faces: int | None = None,
    private_metadata: bool = False,
) -> SwappedImage:
    """Write the image `target` with swapped faces to `out`, marked and atomically, and return the result.

    Parameters
    ----------
    face_swapper, assignment:
        The networks, and the source of each face.
    target, out:
        Image files; the suffix of `out` gives the format. `SwapJob.check` validates `out` earlier.
    provenance:
        How the result is marked.
    decoded:
        The decoded target; None: it is read.
    name:
        The target's name in errors; by default its path.
    max_faces:
        The maximum number of swapped faces; None: no limit.
    private_metadata:
        As of `read_target`, if `decoded` is None.

    Raises
    ------
    UserError
        The image cannot be read or shows no such face, or the result cannot be written or signed.
    """
    name = name or str(target)
    decoded = read_target(target, private_metadata=private_metadata) if decoded is None else decoded
    frame = decoded.frame
    faces, notes = face_swapper.look(frame, name)
    for note in notes:
        print(f"note: {name}: {note}", file=sys.stderr)
    swaps = assignment.of_faces(face_swapper, frame, faces, name)
    if max_faces is not None and len(swaps) > max_faces:
        raise UserError(f"{name}: shows {len(swaps)} faces, more than {max_faces}; choose one of them")
    image = face_swapper.swap_faces(frame, swaps)
    record = face_swapper.origin(provenance)
    write_swap(out, image, record, provenance, target, assignment.source_paths, decoded)
    return SwappedImage(frame, faces, swaps, image, record, notes)
