"""Videos: frames with their times, sound untouched, damage named; faces found, tracked and swapped."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from synthetic_video import RATE, SIZE, make_video, scene

from fsframework.core.components import ComponentOptions, Detector
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.types import Face
from fsframework.faces.detect_video import find_faces
from fsframework.faces.track import smooth, track
from fsframework.media.video_io import probe, read, write
from fsframework.media.video_join import join
from fsframework.utils.prefetch import ahead


def sound_of(file: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(file)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def times_of(file: Path) -> list[Fraction]:
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        return [Fraction(frame.pts or 0) * stream.time_base for frame in container.decode(stream)]


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a moving face, with a tone."""
    return make_video(tmp_path_factory.mktemp("video") / "moving.mp4", [scene(number) for number in range(50)])


def test_a_video_is_looked_at_and_read(moving: Path) -> None:
    video = probe(moving)
    assert (video.width, video.height, len(video.times), video.sound, video.turns) == (*SIZE, 50, 1, 0)
    assert video.seconds == pytest.approx(2.0) and video.rate == RATE
    frames = list(read(video))
    assert len(frames) == 50
    assert np.abs(frames[7].astype(int) - scene(7)).mean() < 4
    later = list(read(video, 33, 36))
    assert len(later) == 3 and all(np.array_equal(a, b) for a, b in zip(later, frames[33:36], strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("times", [None, [0, 40, 90, 100, 180, 181, 300, 340, 400, 1000]], ids=["even", "uneven"])
def test_pieces_are_joined_with_times_and_sound_kept(tmp_path: Path, suffix: str, times: list[int] | None) -> None:
    frames = [scene(5 * number) for number in range(10)]
    source = make_video(tmp_path / "in.mp4", frames, times)
    video = probe(source)
    pieces = [tmp_path / "0.mp4", tmp_path / "1.mp4"]
    assert write(pieces[0], video, iter(frames[:6])) == 6
    assert write(pieces[1], video, iter(frames[6:]), 6) == 4
    out = tmp_path / f"out{suffix}"
    join(pieces, video, out)
    if suffix == ".mkv":  # whose clock counts thousandths of a second, from the first packet on
        found = times_of(out)
        assert [round(1000 * (time - found[0])) for time in found] == [round(1000 * time) for time in times_of(source)]
        assert [data for _, data in sound_of(out)] == [data for _, data in sound_of(source)]
    else:
        assert times_of(out) == times_of(source)
        assert sound_of(out) == sound_of(source)
    assert np.abs(np.stack(list(read(probe(out)))).astype(int) - np.stack(frames)).mean() < 4


def test_odd_sides_and_no_sound(tmp_path: Path) -> None:
    frames = [scene(number)[:239, :317] for number in range(4)]
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = 239, 317, "bgr0"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    video = probe(tmp_path / "odd.mkv")
    write(tmp_path / "piece.mp4", video, read(video))
    join([tmp_path / "piece.mp4"], video, tmp_path / "out.mp4")
    again = probe(tmp_path / "out.mp4")
    assert (again.width, again.height, len(again.times), again.sound) == (317, 239, 4, 0)


def test_damaged_videos_are_named(tmp_path: Path, moving: Path, check_message: Callable[..., None]) -> None:
    whole = moving.read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is no video")
    for name in ("half", "empty", "text", "missing"):
        with pytest.raises(UserError) as caught:
            probe(tmp_path / f"{name}.mp4")
        assert str(caught.value).startswith(f"{tmp_path}/{name}.mp4: ") and "\n" not in str(caught.value)
        check_message(str(caught.value), reason=True)


def test_frames_that_cannot_be_decoded_are_named(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    frames = [scene(number) for number in range(12)]
    source = make_video(tmp_path / "in.mp4", frames, sound=False)
    video = probe(source)
    with expect_error("in.mp4: frame 13 of 12 "):
        list(read(video, 0, 13))


def test_faces_between_searched_frames_are_those_of_whole_frames() -> None:
    detector = part("detectors", "mtcnn").build()
    detector.load()
    frames = [scene(number, two=number >= 6) for number in range(27)]
    whole = [sorted(faces, key=lambda face: face.box[0]) for faces in detector(frames)]
    found = [sorted(faces, key=lambda face: face.box[0]) for faces in find_faces(detector, iter(frames))]
    assert [len(faces) for faces in found] == [len(faces) for faces in whole] == [1] * 6 + [2] * 21
    errors = [
        np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean() / np.ptp(other.landmarks[:2, 0])
        for faces, others in zip(found, whole, strict=True)
        for one, other in zip(faces, others, strict=True)
    ]
    assert np.mean(errors) < 0.05 and np.max(errors) < 0.12


@pytest.mark.parametrize("count", [0, 1, 2, 12, 13, 14, 25])
def test_every_frame_has_its_answer(count: int) -> None:
    class Marked(Detector):
        def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
            return [[face_at(float(frame[0, 0, 0]))] if len(frame) == 50 else [] for frame in frames]

    detect = Marked(ComponentOptions())
    frames = [np.full((50, 60, 3), number, np.uint8) for number in range(count)]
    found = list(find_faces(detect, iter(frames)))
    assert [faces[0].box[0] for faces in found] == list(range(count))  # windows show nothing, so all are searched


def face_at(x: float, y: float = 0.0, side: float = 20.0, score: float = 0.9) -> Face:
    box = np.array([x, y, x + side, y + side])
    points = box[:2] + side * np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.3, 0.8], [0.7, 0.8]])
    return Face(box, points, score)


def test_faces_that_cross_keep_their_tracks() -> None:
    found = [[face_at(4.0 * frame), face_at(120 - 4.0 * frame, y=12)] for frame in range(31)]
    tracks = track(found, [False] * 31, RATE)
    assert [(one.start, one.stop) for one in tracks] == [(0, 31), (0, 31)]
    assert np.allclose(tracks[0].boxes[:, 0], 4 * np.arange(31)) and np.allclose(tracks[1].boxes[:, 1], 12)


def test_gaps_are_bridged_and_cuts_are_not() -> None:
    found = [[face_at(2.0 * frame)] if not 5 <= frame < 9 else [] for frame in range(20)]
    (one,) = track(found, [False] * 20, RATE)
    assert np.allclose(one.boxes[:, 0], 2 * np.arange(20)) and list(np.flatnonzero(one.scores == 0)) == [5, 6, 7, 8]
    cuts = [frame == 12 for frame in range(20)]
    assert [(each.start, each.stop) for each in track(found, cuts, RATE)] == [(0, 12), (12, 20)]
    long = [[face_at(0)] if not 2 <= frame < 14 else [] for frame in range(20)]
    assert [(each.start, each.stop) for each in track(long, [False] * 20, RATE)] == [(0, 2), (14, 20)]


def test_smoothing_takes_noise_and_leaves_motion() -> None:
    rng = np.random.default_rng(0)
    frames = np.arange(400)
    path = 0.001 * (frames - 200.0) ** 2  # a parabola stays as it is: no lag
    (steady,) = track([[face_at(x)] for x in path], [False] * 400, RATE)
    assert np.abs(smooth(steady, RATE).landmarks - steady.landmarks).max() < 1e-6
    shaken = [[face_at(x + e)] for x, e in zip(path, rng.normal(0, 0.5, 400), strict=True)]
    (one,) = track(shaken, [False] * 400, RATE)
    before, after = one.landmarks - steady.landmarks, smooth(one, RATE).landmarks - steady.landmarks
    assert after[5:-5].std() < 0.6 * before.std()
    assert np.diff(after[:, 0, 0], 2).std() < 0.2 * np.diff(before[:, 0, 0], 2).std()


def test_work_ahead_keeps_order_and_errors() -> None:
    assert list(ahead(iter(range(100)), 3)) == list(range(100))

    def failing() -> Any:
        yield 1
        raise ValueError("here")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)
    made: list[int] = []

    def counted() -> Any:
        for number in range(1000):
            made.append(number)
            yield number

    endless = ahead(counted(), 4)
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(made) < 20
