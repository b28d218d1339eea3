"""FaceForensics++: a small folder in its published layout, its pairs, its people, what is missing or damaged in it."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fsf_benchmarks.stability import Stability, change, flow_of
from fsf_data.ffpp import FaceForensics
from fsf_data.videos import read_frames
from skimage.data import astronaut

from fsframework.core.components import Dataset
from fsframework.core.part import part
from fsframework.core.types import SwapResult
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.evaluation.evaluate import bench
from fsframework.media.tensor import to_tensor

av = pytest.importorskip("av")
FRAMES = 9


def film(file: Path, moves: float = 1.0, tint: int = 0, frames: int = FRAMES) -> None:
    """The astronaut's head, going to the right by `moves` pixels a frame."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(25))
        stream.width = stream.height = 256
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for number in range(frames):
            matrix = np.array([[1, 0, -90 + moves * number], [0, 1, 0]], float)
            picture = cv2.warpAffine(astronaut(), matrix, (256, 256))
            picture = np.clip(picture.astype(int) + np.array([tint, 0, -tint]), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ffpp")
    for number, tint in (("000", 0), ("003", 25), ("007", -25)):
        film(root / "original_sequences/youtube/c23/videos" / f"{number}.mp4", 1 + number.count("7"), tint)
    for name in ("000_003", "003_000", "007_000"):
        film(root / "manipulated_sequences/FaceShifter/c23/videos" / f"{name}.mp4", frames=1)
    (root / "manipulated_sequences/FaceShifter/c23/videos/notes.mp4").write_text("")
    return root


def loaded(root: Path, cache: Path, **options: Any) -> FaceForensics:
    built: FaceForensics = part("datasets", "ffpp", root=root, cache=cache, **options).build(
        64, part("detectors", "mtcnn"), "test"
    )
    built.load()
    return built


def test_frames_are_spread_evenly_and_pairs_are_its_own(root: Path, tmp_path: Path) -> None:
    faces = loaded(root, tmp_path, frames=3)
    assert faces.chosen(9) == [1, 4, 7] and faces.chosen(10) == [1, 5, 8] and faces.chosen(2) == []
    assert faces.names() == [f"{video}/{k}" for video in ("000", "003", "007") for k in range(3)]
    names = faces.names()
    pairs = [(names[source], names[target]) for source, target in faces.pairs()]
    assert pairs[:3] == [("003/0", "000/0"), ("003/1", "000/1"), ("003/2", "000/2")]  # 000_003: target, source
    assert [pair[0] for pair in pairs[3:]] == ["000/0", "000/1", "000/2"] * 2 and len(pairs) == 9
    assert faces.people() == ["000"] * 3 + ["003"] * 3 + ["007"] * 3
    middle = read_frames(root / "original_sequences/youtube/c23/videos/000.mp4", lambda count: [1, 4, 7])
    shift = cv2.phaseCorrelate(*(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).astype(float) for f in middle[:2]))[0][0]
    assert shift == pytest.approx(3, abs=0.2)


def test_close_frames_come_from_the_middle(root: Path, tmp_path: Path) -> None:
    faces = loaded(root, tmp_path, frames=3, step=2)
    assert faces.chosen(9) == [2, 4, 6] and faces.chosen(5) == [0, 2, 4] and faces.chosen(4) == []
    names = faces.names()
    assert [names[faces.next_frame(names.index(name)) or 0] for name in ("003/0", "003/1", "003/2")] == [
        "003/1", "003/2", "003/1",
    ]  # fmt: skip


def test_wrapping_data_sets_pass_pairs_and_neighbours_on(root: Path, tmp_path: Path) -> None:
    inner = part("datasets", "ffpp", root=root, cache=tmp_path, frames=2)
    covered = part("datasets", "occluded", data=inner).build(64, part("detectors", "mtcnn"), "test")
    covered.load()
    assert covered.pairs() == loaded(root, tmp_path, frames=2).pairs() and covered.next_frame(0) == 1


def test_people_can_be_grouped(root: Path, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    file = tmp_path / "people.csv"
    file.write_text("video,person\n000,a\n007,a\n")
    assert loaded(root, tmp_path, frames=1, people=file).people() == ["person a", "003", "person a"]
    file.write_text("film,person\n000,a\n")
    with expect_error("people.csv"):
        loaded(root, tmp_path, frames=1, people=file)


def test_a_model_is_measured_on_it(root: Path, tmp_path: Path) -> None:
    sets = [
        f"evaluation.data={{use: ffpp, root: '{root}', cache: '{tmp_path}', frames: 2, step: 1}}",
        "evaluation.pairs=data",
        "evaluation.benchmarks=[{use: id-retrieval, judge: {use: dlib-resnet}}, {use: stability}]",
    ]
    found = bench("faceshifter-lfw-64", [], sets, "cpu").to_json()
    assert found["pairs"] == 6 and found["failures"]["stability"]["method"] == 0
    assert found["baselines"]["copy-target"]["stability"]["flicker"] == 0
    assert found["benchmarks"]["stability"]["flicker"] is not None


def test_what_is_missing_or_damaged_is_one_line(
    root: Path, tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    with expect_error(f"{tmp_path.name}: manipulated_sequences/*/c23/videos"):
        loaded(tmp_path, tmp_path)
    with expect_error("000.mp4", hide={str(root): "ROOT"}):
        loaded(root, tmp_path, frames=10)
    with expect_error("ffpp"):
        part("datasets", "ffpp", root=root).build(64, part("detectors", "mtcnn"), "train").load()
    names = root / "manipulated_sequences/FaceShifter/c23/videos"
    originals = root / "original_sequences/youtube/c23/videos"
    (names / "003_009.mp4").write_text("")
    try:
        with expect_error("009.mp4", hide={str(root): "ROOT"}):
            loaded(root, tmp_path, frames=2)
        (originals / "009.mp4").write_bytes(b"no video")
        with expect_error("009.mp4", hide={str(root): "ROOT", "Invalid data found when processing input": "REASON"}):
            loaded(root, tmp_path, frames=2)
        whole = (originals / "000.mp4").read_bytes()
        (originals / "009.mp4").write_bytes(whole[: len(whole) // 2])
        with expect_error("009.mp4", hide={str(root): "ROOT", "Invalid data found when processing input": "REASON"}):
            loaded(root, tmp_path, frames=2)
    finally:
        (names / "003_009.mp4").unlink()
        (originals / "009.mp4").unlink(missing_ok=True)


def test_data_without_pairs_of_its_own(expect_error: Callable[..., Any]) -> None:
    sets = ["evaluation.data={use: orl}", "evaluation.pairs=data"]
    with expect_error("evaluation.pairs: data"):
        bench("faceshifter-lfw-64", ["reconstruction"], sets, "cpu")


# Stability --------------------------------------------------------------------------------------------------------


def head(shift: float) -> np.ndarray:
    matrix = np.array([[1, 0, -128 + shift], [0, 1, -20]], float)
    return cv2.warpAffine(astronaut(), matrix, (128, 128))


class Film(Dataset):
    """Four frames of a head that moves."""

    def __init__(self) -> None:
        self.frames = [head(2.0 * k) for k in range(4)]

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        from fsframework.core.types import Sample

        return Sample(self.frames[index], str(index), "one", np.zeros((5, 2)))

    def next_frame(self, index: int) -> int | None:
        return index + 1 if index < 3 else index - 1


def swapped(images: list[np.ndarray], pairs: list[tuple[int, int]]) -> Iterator[Any]:
    for batch, image in zip(EvaluationPairs(Film(), pairs, 1), images, strict=True):
        tensor = to_tensor(image[None])
        yield batch, SwapResult(tensor, tensor, torch.zeros(1, 1))


def test_flow_explains_a_shift() -> None:
    one, other = head(0), head(3)
    flow = flow_of(one, other)
    assert np.median(flow[30:90, 30:90, 0]) == pytest.approx(3, abs=0.3)
    assert change(one, other, flow) < 0.5 * change(one, other, 0 * flow)


def test_a_steady_swap_does_not_flicker_and_an_unsteady_one_does() -> None:
    film, pairs = Film(), [(0, k) for k in range(4)]
    measure = Stability(Stability.Options())
    darker = [frame // 2 for frame in film.frames]
    unsteady = [
        np.clip(frame.astype(int) + 20 * (-1) ** k, 0, 255).astype(np.uint8) for k, frame in enumerate(film.frames)
    ]
    copied, steady, jumping = (measure(swapped(x, pairs), film)["flicker"] for x in (film.frames, darker, unsteady))
    assert copied.tolist() == [0, 0, 0, 0]  # type: ignore[union-attr]
    assert steady.max() < 0.5 and jumping.min() > 20  # type: ignore[union-attr]


def test_a_frame_alone_fails() -> None:
    measure = Stability(Stability.Options())
    assert np.isnan(measure(swapped([head(0), head(0)], [(0, 0), (0, 2)]), Film())["flicker"]).all()
