"""Whom each face of a picture or a video gets: one source for the faces that a rule chooses, or one for each person."""

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
    """Somebody in the pictures, by a reference, and who takes that place."""

    reference: Tensor  # (1, D) embedding
    source: SourceIdentity
    match_threshold: float  # cosine to the reference from which a face is this person's, a property of the encoder


@dataclass(frozen=True, eq=False)
class FaceAssignment:
    """A rule (`largest`, `all`, a number from the left) with one source; or people with a source each."""

    face: str = "largest"
    source: SourceIdentity | None = None
    people: Sequence[IdentityMapping] = field(default=())

    @property
    def source_paths(self) -> list[Path]:
        """The files of the sources, each once."""
        sources = [self.source] if self.source is not None else [person.source for person in self.people]
        return list(dict.fromkeys(source.path for source in sources if source.path is not None))

    def of_faces(
        self, converter: FaceSwapper, frame: np.ndarray, faces: list[Face], name: str
    ) -> list[tuple[Face, SourceIdentity]]:
        """The faces of a frame that are swapped, the one that comes on top last.

        Raises UserError, with `name`, if there is no such face.
        """
        if self.source is not None:
            return [(face, self.source) for face in choose(faces, self.face, name)]
        ordered = choose(faces, "all", name)
        likeness = self._likeness(converter.embed(frame, ordered))
        found = [(face, source) for face, row in zip(ordered, likeness, strict=True) if (source := self._source(row))]
        if not found:
            raise UserError(f"{name}: shows none of the people of --map; use another picture of them")
        return found

    def of_tracks(self, tracks: list[Track], embeddings: dict[int, Tensor]) -> dict[int, SourceIdentity]:
        """The source of each track that is swapped, by its place.

        `embeddings` are the tracks' (n, D), by place; they are asked for with people only.
        """
        if self.source is None:
            rows = {place: self._likeness(z).mean(dim=0) for place, z in embeddings.items()}
            return {place: source for place, row in rows.items() if (source := self._source(row))}
        return dict.fromkeys(chosen_tracks(tracks, self.face), self.source)

    def _likeness(self, z_id: Tensor) -> Tensor:
        """Cosine (n, people) of embeddings (n, D) to each reference."""
        references = F.normalize(torch.cat([person.reference for person in self.people]).float(), dim=1)
        return F.normalize(z_id.float(), dim=1) @ references.T

    def _source(self, likeness: Tensor) -> SourceIdentity | None:
        """The source for likenesses (people,) of one face; None if it is nobody's."""
        best = int(likeness.argmax())
        person = self.people[best]
        return person.source if likeness[best] >= person.match_threshold else None


def chosen_tracks(tracks: list[Track], face: str) -> list[int]:
    """The places of the tracks that a rule means.

    `largest` is the track that shows most for longest, and where it is not there the largest of the others, so that
    nobody else comes in while that person is seen. A number counts the tracks that are seen at the same time, from the
    left.
    """
    check_face(face)
    if face == "all":
        return list(range(len(tracks)))
    if face == "largest":
        taken: list[int] = []
        for place in sorted(range(len(tracks)), key=lambda each: -tracks[each].area()):
            if not any(_together(tracks[place], tracks[other]) for other in taken):
                taken.append(place)
        return sorted(taken)
    return [place for place, track in enumerate(tracks) if _rank(track, tracks) == int(face)]


def _together(one: Track, other: Track) -> int:
    """Frames in which both are seen."""
    return max(0, min(one.stop, other.stop) - max(one.start, other.start))


def _rank(track: Track, tracks: list[Track]) -> int:
    """The place of a track, from the left, counted from 1, among those that are seen with it most of its time."""
    others = [each for each in tracks if each is not track and 2 * _together(track, each) > track.stop - track.start]
    return 1 + sum(_middle(each) < _middle(track) for each in others)


def _middle(track: Track) -> float:
    return float(np.median(track.boxes[:, 0] + track.boxes[:, 2]))
