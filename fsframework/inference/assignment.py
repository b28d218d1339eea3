"""Assign a source identity to each target face: one source for all selected faces, or one per reference person."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.same_person import overlap
from fsframework.faces.select import check_face, choose
from fsframework.faces.track import Track
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity


@dataclass(frozen=True, eq=False)
class IdentityMapping:
    """A reference person in the targets and the source identity that replaces them."""

    reference: Tensor  # (1, D) embedding
    source: SourceIdentity
    match_threshold: float  # minimum cosine to the reference, a property of the encoder
    name: str = "the reference"  # for messages


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
        cosines = self._cosines(face_swapper.embed(frame, ordered)).cpu().numpy()
        assigned = self._likeliest(cosines, np.ones((len(ordered), len(ordered)), bool), name)
        if not assigned:
            raise UserError(f"{name}: shows none of the people of --map: {self._nearest(cosines)}")
        return [(ordered[index], assigned[index]) for index in sorted(assigned)]

    def of_tracks(
        self,
        tracks: list[Track],
        embeddings: dict[int, Tensor],
        people: Sequence[int] | None = None,
        name: str = "the video",
    ) -> dict[int, SourceIdentity]:
        """Return the source of each swapped track, by the track's index; `name` begins a line on standard error.

        `embeddings` are those of each track (n, D), by its index; needed only with reference people. `people` are the
        people that the tracks show, for rules (see `chosen_tracks`).
        """
        if self.source is not None:
            return dict.fromkeys(chosen_tracks(tracks, self.face, people), self.source)
        indices = sorted(embeddings)
        conflicts = _conflicts([tracks[index] for index in indices])
        assigned = self._likeliest(self._track_cosines(embeddings), conflicts, name)
        return {indices[row]: source for row, source in assigned.items()}

    def missing(self, embeddings: dict[int, Tensor]) -> str:
        """Return what is said of a video that shows none of the reference people: the nearest face, and what to do."""
        return f"shows none of the people of --map: {self._nearest(self._track_cosines(embeddings))}"

    def _track_cosines(self, embeddings: dict[int, Tensor]) -> np.ndarray:
        """Return the mean cosine (tracks, people) of the embeddings of each track to each reference."""
        return np.stack([self._cosines(embeddings[index]).mean(dim=0).cpu().numpy() for index in sorted(embeddings)])

    def _cosines(self, z_id: Tensor) -> Tensor:
        """Return the cosine similarity (n, people) of embeddings (n, D) to each reference."""
        references = F.normalize(torch.cat([person.reference for person in self.people]).float(), dim=1)
        return F.normalize(z_id.float(), dim=1) @ references.T

    def _likeliest(self, cosines: np.ndarray, conflicts: np.ndarray, name: str) -> dict[int, SourceIdentity]:
        """Return the source of each row of cosines (rows, people) that matches a reference, most similar first.

        Of rows that conflict (rows, rows), which are visible at the same time, at most one is the same person. A line
        on standard error, which begins with `name`, says for which references others match, too: twins, or a mirror.
        """
        assigned: dict[int, int] = {}
        for flat in np.argsort(-cosines, axis=None, kind="stable"):
            row, person = divmod(int(flat), len(self.people))
            if cosines[row, person] < self.people[person].match_threshold or row in assigned:
                continue
            if not any(conflicts[row, other] for other, taken in assigned.items() if taken == person):
                assigned[row] = person
        for person, mapping in enumerate(self.people):
            others = np.flatnonzero(cosines[:, person] >= mapping.match_threshold)
            if any(row not in assigned for row in others):
                which = f"several faces at once match {mapping.name}"
                print(f"note: {name}: {which}; only the most similar is swapped", file=sys.stderr)
        return {row: self.people[assigned[row]].source for row in sorted(assigned)}

    def _nearest(self, cosines: np.ndarray) -> str:
        """Return how near the most similar of some faces is to a reference, and what to do."""
        row, column = np.unravel_index(cosines.argmax(), cosines.shape)
        person = self.people[int(column)]
        similarity = f"cosine {cosines[row, column]:.2f} to {person.name}"
        return f"the nearest face has {similarity}, one person from {person.match_threshold:.2f}; use another picture"


def _conflicts(tracks: list[Track]) -> np.ndarray:
    """Return whether two tracks (n, n) are visible at the same time."""
    return np.array([[bool(overlap(one, other)) for other in tracks] for one in tracks])


def chosen_tracks(tracks: list[Track], face: str, people: Sequence[int] | None = None) -> list[int]:
    """Return the indices of the tracks that `face` selects.

    Parameters
    ----------
    tracks:
        The tracks.
    face:
        `all`, `largest` (by area, summed over frames), or N: the N-th from the left, from 1, in most frames.
    people:
        The person that each track shows; `largest` and N select the tracks of one person. None if the identity encoder
        does not compare faces. Then `largest` also selects the largest of the tracks that do not overlap the others in
        time, and N the N-th from the left of the tracks at the same time.
    """
    check_face(face)
    if face == "all":
        return list(range(len(tracks)))
    if people is not None:
        chosen_person = _largest_person(tracks, people) if face == "largest" else _nth_person(tracks, people, int(face))
        return [index for index, person in enumerate(people) if person == chosen_person]
    if face == "largest":
        chosen: list[int] = []
        for index in sorted(range(len(tracks)), key=lambda index: -tracks[index].area()):
            if not any(overlap(tracks[index], tracks[other]) for other in chosen):
                chosen.append(index)
        return sorted(chosen)
    return [index for index, track in enumerate(tracks) if _rank(track, tracks) == int(face)]


def _largest_person(tracks: list[Track], people: Sequence[int]) -> int:
    """Return the person with the largest area, summed over frames."""
    areas: dict[int, float] = {}
    for track, person in zip(tracks, people, strict=True):
        areas[person] = areas.get(person, 0.0) + track.area()
    return max(areas, key=lambda person: areas[person])


def _nth_person(tracks: list[Track], people: Sequence[int], number: int) -> int | None:
    """Return the person that is the N-th from the left in most frames, or None if there never are so many."""
    votes: Counter[int] = Counter()
    bounds = sorted({frame for track in tracks for frame in (track.start, track.stop)})
    for first, stop in pairwise(bounds):
        present = [index for index, track in enumerate(tracks) if track.start <= first < track.stop]
        if len(present) < number:
            continue
        middles = np.stack(
            [
                tracks[index].boxes[first - tracks[index].start : stop - tracks[index].start, ::2].sum(1)
                for index in present
            ]
        )
        ranked, counts = np.unique(middles.argsort(axis=0)[number - 1], return_counts=True)
        votes.update({people[present[index]]: int(count) for index, count in zip(ranked, counts, strict=True)})
    return max(votes, key=lambda person: votes[person]) if votes else None


def _rank(track: Track, tracks: list[Track]) -> int:
    """Return the position of a track from the left, from 1, among the tracks that overlap more than half of it."""
    others = [other for other in tracks if other is not track and 2 * overlap(track, other) > track.stop - track.start]
    return 1 + sum(_middle(other) < _middle(track) for other in others)


def _middle(track: Track) -> float:
    return float(np.median(track.boxes[:, 0] + track.boxes[:, 2]))
