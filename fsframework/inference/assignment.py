"""Assign a source identity to each target face: one source for all selected faces, or one per reference person."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.select import check_face, choose
from fsframework.faces.track import Track
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity


@dataclass(frozen=True, eq=False)
class IdentityMapping:
    """A reference person in the targets and the source identity that replaces them."""

    reference: Tensor  # (1, D) embedding
    source: SourceIdentity
    match_threshold: float  # minimum cosine to the reference, a property of the encoder


@dataclass(frozen=True, eq=False)
class FaceAssignment:
    """Assign one source to the faces that `face` selects (`largest`, `all`, N from the left), or one per reference."""

    face: str = "largest"
    source: SourceIdentity | None = None
    people: Sequence[IdentityMapping] = field(default=())

    @property
    def source_paths(self) -> list[Path]:
        """Return the files of the sources, without duplicates."""
        sources = [self.source] if self.source is not None else [person.source for person in self.people]
        return list(dict.fromkeys(source.path for source in sources if source.path is not None))

    def of_faces(
        self, face_swapper: FaceSwapper, frame: np.ndarray, faces: list[Face], name: str
    ) -> list[tuple[Face, SourceIdentity]]:
        """Return the selected faces of a frame (H, W, 3) uint8 with their sources, in pasting order.

        Raises UserError, which begins with `name`, if there is no such face.
        """
        if self.source is not None:
            return [(face, self.source) for face in choose(faces, self.face, name)]
        ordered = choose(faces, "all", name)
        cosines = self._cosines(face_swapper.embed(frame, ordered))
        swaps = [(face, source) for face, row in zip(ordered, cosines, strict=True) if (source := self._source(row))]
        if not swaps:
            raise UserError(f"{name}: shows none of the people of --map; use another picture of them")
        return swaps

    def of_tracks(self, tracks: list[Track], embeddings: dict[int, Tensor]) -> dict[int, SourceIdentity]:
        """Return the source of each swapped track, by the track's index.

        `embeddings` are those of each track (n, D), by its index; needed only with reference people.
        """
        if self.source is None:
            rows = {index: self._cosines(z).mean(dim=0) for index, z in embeddings.items()}
            return {index: source for index, row in rows.items() if (source := self._source(row))}
        return dict.fromkeys(chosen_tracks(tracks, self.face), self.source)

    def _cosines(self, z_id: Tensor) -> Tensor:
        """Return the cosine similarity (n, people) of embeddings (n, D) to each reference."""
        references = F.normalize(torch.cat([person.reference for person in self.people]).float(), dim=1)
        return F.normalize(z_id.float(), dim=1) @ references.T

    def _source(self, cosines: Tensor) -> SourceIdentity | None:
        """Return the source for one face's cosines (people,), or None if it matches no reference."""
        best = int(cosines.argmax())
        person = self.people[best]
        return person.source if cosines[best] >= person.match_threshold else None


def chosen_tracks(tracks: list[Track], face: str) -> list[int]:
    """Return the indices of the tracks that `face` selects.

    `largest` is the track with the largest area, summed over frames, and the largest of the tracks that do not overlap
    it in time, and so on. A number N is the N-th from the left of the tracks at the same time, from 1.
    """
    check_face(face)
    if face == "all":
        return list(range(len(tracks)))
    if face == "largest":
        chosen: list[int] = []
        for index in sorted(range(len(tracks)), key=lambda index: -tracks[index].area()):
            if not any(_overlap(tracks[index], tracks[other]) for other in chosen):
                chosen.append(index)
        return sorted(chosen)
    return [index for index, track in enumerate(tracks) if _rank(track, tracks) == int(face)]


def _overlap(one: Track, other: Track) -> int:
    """Return the number of frames in both tracks."""
    return max(0, min(one.stop, other.stop) - max(one.start, other.start))


def _rank(track: Track, tracks: list[Track]) -> int:
    """Return the position of a track from the left, from 1, among the tracks that overlap more than half of it."""
    others = [other for other in tracks if other is not track and 2 * _overlap(track, other) > track.stop - track.start]
    return 1 + sum(_middle(other) < _middle(track) for other in others)


def _middle(track: Track) -> float:
    return float(np.median(track.boxes[:, 0] + track.boxes[:, 2]))
