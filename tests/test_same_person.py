"""A mixed track is never one person: jump cuts, people who cross, leave and come back, look alike."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from films import make_film

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.types import Face, FaceBatch
from fsframework.faces.same_person import people_of, split
from fsframework.faces.track import Track, thumbnail
from fsframework.inference.assignment import FaceAssignment, IdentityMapping
from fsframework.inference.face_swapper import SourceIdentity
from fsframework.inference.video import plan
from fsframework.media.video_io import probe

THRESHOLD = 0.5
SOURCE = SourceIdentity(FaceBatch.of(torch.zeros(1, 3, 8, 8)), torch.zeros(1, 3))
# People are discs of one colour with a pattern of their own. Their embeddings are their mean colours.
ANNA, BERT, CARL = (200, 60, 60), (60, 60, 200), (60, 200, 60)
SIZE = (320, 120)
Place = tuple[tuple[int, int, int], float, float]  # colour, x and y of the centre


def scene(*people: Place, side: int = 40) -> np.ndarray:
    """Return a frame (H, W, 3) uint8 with people, the last in front."""
    frame = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for colour, x, y in people:
        left, top = round(x - side / 2), round(y - side / 2)
        for row in range(top, top + side):
            stripe = (row - top) // 5 % 2 if colour[0] > colour[2] else (row - top) // 10 % 2
            frame[row, max(0, left) : max(0, left + side)] = np.array(colour) - 30 * stripe
    return frame


class DiscDetector(Detector):
    """Find the discs of one colour in each frame; of two that overlap, only the whole one in front."""

    def __init__(self) -> None:
        super().__init__(ComponentOptions())

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        return [
            [face for colour in range(3) if (face := _found(frame.astype(int), colour)) is not None] for frame in frames
        ]


def _found(frame: np.ndarray, colour: int) -> Face | None:
    others = np.delete(frame, colour, axis=2).max(axis=2)
    mask = ((frame[..., colour] - others) > 60).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return None
    left, top, width, height, _ = max(stats[1:], key=lambda row: row[4])
    if not 0.8 < width / height < 1.25:
        return None
    box = np.array([left, top, left + width, top + height], float)
    points = box[:2] + [width, height] * np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.8], [0.7, 0.8]])
    return Face(box, points, 0.9)


class Discs:
    """A face swapper for discs, as far as `plan` uses it; counts embeddings."""

    def __init__(self) -> None:
        self.swapper = SimpleNamespace(identity=SimpleNamespace(metric=True, match_threshold=THRESHOLD))
        self.detector = DiscDetector()
        self.embedded = 0

    def embed(self, frame: np.ndarray, faces: Sequence[Face]) -> torch.Tensor:
        self.embedded += len(faces)
        rows = []
        for face in faces:
            left, top, right, bottom = face.box.round().astype(int)
            inside = frame[max(0, top) : bottom, max(0, left) : right].reshape(-1, 3).astype(float) - 100
            rows.append(inside.mean(axis=0))
        return torch.tensor(np.stack(rows))


def reference(colour: tuple[int, int, int], name: str = "anna.png") -> IdentityMapping:
    return IdentityMapping(torch.tensor([colour], dtype=torch.float64) - 100, SOURCE, THRESHOLD, name)


@pytest.fixture
def swapped(tmp_path: Path) -> Callable[..., list[list[float]]]:
    """Returns where faces are swapped in each frame of a film, by the middles of their boxes."""

    def of(frames: list[np.ndarray], assignment: FaceAssignment) -> list[list[float]]:
        video = probe(make_film(tmp_path / "film.mp4", frames, audio=None))
        tracks, sources = plan(Discs(), assignment, video, None)  # type: ignore[arg-type]
        places: list[list[float]] = [[] for _ in frames]
        for index in sources:
            one = tracks[index]
            for frame in range(one.start, one.stop):
                places[frame].append(float(one.boxes[frame - one.start, ::2].mean()))
        return places

    return of


ONE_PERSON = [FaceAssignment("1", SOURCE), FaceAssignment("largest", SOURCE), FaceAssignment(people=[reference(ANNA)])]


@pytest.mark.parametrize("assignment", ONE_PERSON, ids=["1", "largest", "map"])
@pytest.mark.parametrize(("before", "after"), [(24, 12), (26, 9), (30, 29)])
def test_a_jump_cut_in_one_room(
    swapped: Callable[..., Any], assignment: FaceAssignment, before: int, after: int
) -> None:
    frames = [scene((ANNA, 80, 60), (BERT, 240, 60))] * before + [scene((BERT, 80, 60), (ANNA, 240, 60))] * after
    places = swapped(frames, assignment)
    assert np.allclose(places[:before], 80, atol=3)
    assert np.allclose(places[before:], 240, atol=3)


@pytest.mark.parametrize("assignment", ONE_PERSON, ids=["1", "largest", "map"])
def test_people_who_cross(swapped: Callable[..., Any], assignment: FaceAssignment) -> None:
    """Anna goes from left to right in front of Bert, who stops where they meet and goes back."""
    frames = []
    for number in range(60):
        bert = 280 - 4 * min(number, 60 - number)
        frames.append(scene((BERT, bert, 64), (ANNA, 40 + 4 * number, 60)))
    places = swapped(frames, assignment)
    anna = [40 + 4 * number for number in range(60)]
    for number, middles in enumerate(places):
        assert len(middles) <= 1 and all(abs(middle - anna[number]) < 12 for middle in middles), number
    assert sum(map(len, places)) >= 55


@pytest.mark.parametrize("assignment", ONE_PERSON, ids=["1", "largest", "map"])
def test_somebody_who_leaves_and_comes_back(swapped: Callable[..., Any], assignment: FaceAssignment) -> None:
    frames = [scene((ANNA, 80, 60), (BERT, 200, 60))] * 30
    frames += [scene((BERT, 200, 60))] * 15
    frames += [scene((BERT, 200, 60), (ANNA, 290, 60))] * 14
    places = swapped(frames, assignment)
    if assignment.face == "largest" and assignment.source is not None:  # Bert, summed over the film
        assert np.allclose(places, 200, atol=3)
        return
    assert np.allclose(places[45:], 290, atol=3)
    assert places[30:45] == [[]] * 15


def test_of_two_similar_faces_at_most_one_is_the_reference(swapped: Callable[..., Any]) -> None:
    alike = (60, 180, 190)
    frames = [scene((alike, 80, 60), (BERT, 240, 60))] * 20
    likeness = [FaceAssignment(people=[reference(each)]) for each in (BERT, (60, 190, 180))]
    assert np.allclose(swapped(frames, likeness[0]), 240, atol=3)


def test_pictures_have_each_person_once(expect_error: Callable[..., Any]) -> None:
    faces = [Face(np.array([x, 0, x + 10.0, 10]), np.zeros((5, 2)), 0.9) for x in (0.0, 20.0)]
    swapper = SimpleNamespace(embed=lambda frame, ordered: torch.tensor([[1.0, 0.2], [1.0, 0.1]]))
    frame = np.zeros((10, 40, 3), np.uint8)
    other = SourceIdentity(SOURCE.faces, SOURCE.z_id)
    anna = IdentityMapping(torch.tensor([[1.0, 0.0]]), SOURCE, 0.5, "anna.png")
    bert = IdentityMapping(torch.tensor([[0.0, 1.0]]), other, 0.19, "bert.png")
    assert FaceAssignment(people=[anna]).of_faces(swapper, frame, faces, "a.png") == [(faces[1], SOURCE)]  # type: ignore[arg-type]
    both = FaceAssignment(people=[anna, bert]).of_faces(swapper, frame, faces, "a.png")  # type: ignore[arg-type]
    assert both == [(faces[0], other), (faces[1], SOURCE)]
    far = IdentityMapping(torch.tensor([[-0.6, 0.8]]), SOURCE, 0.5, "carl.png")
    with expect_error("a.png: "):
        FaceAssignment(people=[far]).of_faces(swapper, frame, faces, "a.png")  # type: ignore[arg-type]


def test_a_film_without_the_person_says_how_near_the_nearest_is(
    tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    video = probe(make_film(tmp_path / "film.mp4", [scene((BERT, 80, 60))] * 9, audio=None))
    with expect_error("film.mp4: "):
        plan(Discs(), FaceAssignment(people=[reference(ANNA)]), video, None)  # type: ignore[arg-type]


def test_one_steady_track_needs_no_embeddings(tmp_path: Path) -> None:
    frames = [scene((ANNA, 80 + number, 60)) for number in range(40)]
    discs = Discs()
    plan(discs, FaceAssignment("largest", SOURCE), probe(make_film(tmp_path / "film.mp4", frames)), None)  # type: ignore[arg-type]
    assert discs.embedded == 0


def test_thumbnails_follow_a_face_and_tell_faces_apart() -> None:
    rng = np.random.default_rng(0)
    heads = [cv2.GaussianBlur(rng.integers(0, 256, (200, 200, 3)).astype(np.uint8), (0, 0), 12) for _ in range(2)]
    heads = [np.clip(5.0 * (head - head.mean()) + 128, 0, 255).astype(np.uint8) for head in heads]
    points = np.array([[80.0, 80], [120, 80], [100, 100], [85, 125], [115, 125]])
    small = []
    for head, angle, scale in [(heads[0], 0, 1.0), (heads[0], 25, 0.4), (heads[1], 0, 1.0)]:
        matrix = cv2.getRotationMatrix2D((100, 100), angle, scale)
        landmarks = points @ matrix[:, :2].T + matrix[:, 2]
        row = thumbnail(cv2.warpAffine(head, matrix, (200, 200)), Face(np.zeros(4), landmarks, 0.9)).ravel()
        small.append(row - row.mean())
    likeness = np.corrcoef(small)
    assert likeness[0, 1] > 0.97 and abs(likeness[0, 2]) < 0.5


def piece(start: int, stop: int) -> Track:
    count = stop - start
    return Track(start, np.tile(np.array([0.0, 0, 9, 9]), (count, 1)), np.zeros((count, 5, 2)), np.ones(count))


def test_parts_are_split_where_embeddings_part() -> None:
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    parts = [piece(10 * index, 10 * index + 10) for index in range(4)]
    assert split(parts, [one, 2 * one, other, one], 0.5) == [[0, 1], [2], [3]]
    near = np.array([[0.6, 0.8]])
    assert split(parts[:2], [one, near], 0.5) == [[0], [1]]  # 0.6 is one person, but not in consecutive frames
    assert split(parts[:3], [one, near, one], 0.5) == [[0, 1, 2]]  # a blur between two parts of one person
    longer = [piece(0, 10), piece(10, 23), piece(23, 30)]
    assert split(longer, [one, near, one], 0.5) == [[0], [1], [2]]
    assert split(parts, [other, one, near, one], 0.5) == [[0], [1, 2, 3]]
    assert split(parts[:3], [one, other, one], 0.5) == [[0], [1], [2]]
    assert split(parts[:3], [one, near, other], 0.5) == [[0], [1, 2]]  # which match by 0.8
    assert split([], [], 0.5) == []


def test_tracks_of_one_person_are_never_visible_at_once() -> None:
    vectors = [np.array([[1.0, 0.0]]), np.array([[1.0, 0.1]]), np.array([[1.0, 0.05]]), np.array([[0.0, 1.0]])]
    tracks = [piece(0, 10), piece(5, 15), piece(20, 30), piece(40, 50)]
    people = people_of(tracks, vectors, 0.5)
    assert people[0] != people[1] and people[2] in people[:2] and people[3] == max(people) and len(set(people)) == 3
    assert people_of([], [], 0.5) == []
