"""`fsf swap` of videos and folders: rules, people, interrupted work, broken files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import skimage.data
import torch
from films import make_film
from swapping import FAST_MODEL, swap_pairs, swap_target
from synthetic_video import make_video, scene

from fsframework.core.types import FaceBatch
from fsframework.data.samples import portrait, somebody
from fsframework.faces.paste import DEFAULT_PASTE, Compositor, PasteOptions
from fsframework.faces.track import Track
from fsframework.inference.assignment import FaceAssignment, IdentityMapping, chosen_tracks
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.inference.jobs import AssignmentFiles, SwapOptions, pairs_jobs, parse_mapping, result_path, target_jobs
from fsframework.inference.runner import DONE, NOTE, execute
from fsframework.inference.video import painted, plan
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.media.video_io import probe, read
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify
from fsframework.utils.lock import locked
from fsframework.utils.shards import JobShard


@pytest.fixture
def hide(place: Path) -> dict[str, str]:
    """Return what hides the module's folder."""
    return {str(place): "PLACE"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with somebody's picture, and videos of one and of two faces, twelve frames each."""
    folder = tmp_path_factory.mktemp("swap")
    write_image(folder / "source.png", somebody(), synthetic=False)
    make_video(folder / "one.mp4", [scene(number) for number in range(12)])
    make_video(folder / "two.mp4", [scene(number, two=True) for number in range(12)])
    return folder


def frames_of(file: Path) -> np.ndarray:
    return np.stack(list(read(probe(file)))).astype(int)


def changed(before: Path, after: Path) -> np.ndarray:
    """Whether a face was swapped in the left and the right half of each frame (n, 2): more than encoding changes."""
    apart = np.abs(frames_of(after) - frames_of(before)).mean(axis=3)  # (n, 240, 320)
    blocks = apart.reshape(len(apart), 15, 16, 2, 10, 16).mean(axis=(2, 5)).max(axis=(1, 3))
    return blocks > 15


def sounds_and_times(file: Path) -> tuple[list[bytes], list[Fraction]]:
    with av.open(str(file)) as container:
        sound = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        return sound, [Fraction(frame.pts or 0) * stream.time_base for frame in container.decode(stream)]


def test_a_video_keeps_its_sound_and_times_and_every_frame_is_swapped(converter: FaceSwapper, place: Path) -> None:
    out = place / "swapped.mp4"
    assert swap_target(converter, place / "one.mp4", out, place / "source.png", "largest", []) == 0
    assert sounds_and_times(out) == sounds_and_times(place / "one.mp4")
    assert changed(place / "one.mp4", out).any(axis=1).all()
    assert not (place / ".swapped.mp4.parts").exists()


@pytest.mark.parametrize(("face", "sides"), [("all", [True, True]), ("1", [True, False]), ("2", [False, True])])
def test_rules_choose_faces_of_videos(converter: FaceSwapper, place: Path, face: str, sides: list[bool]) -> None:
    out = place / f"face-{face}.mp4"
    swap_target(converter, place / "two.mp4", out, place / "source.png", face, [])
    assert (changed(place / "two.mp4", out) == sides).all()


def test_a_face_that_is_not_there(
    converter: FaceSwapper, place: Path, hide: dict[str, str], expect_error: Callable[..., Any]
) -> None:
    with expect_error("two.mp4: ", hide=hide):
        swap_target(converter, place / "two.mp4", place / "none.mp4", place / "source.png", "3", [])
    make_video(place / "empty.mp4", [np.full((96, 128, 3), 90, np.uint8)] * 3)
    with expect_error("empty.mp4: ", hide=hide):
        swap_target(converter, place / "empty.mp4", place / "none.mp4", place / "source.png", "all", [])
    assert not (place / "none.mp4").exists()


def test_people_get_their_own_sources(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces in the left half of a frame are said to be one person, and those in the right half another."""
    converter = FaceSwapper(FAST_MODEL, "cpu")
    one, other = torch.eye(2)[None, 0], torch.eye(2)[None, 1]

    def embed(frame: np.ndarray, faces: list[object]) -> torch.Tensor:
        if frame.shape[1] != 320:  # a reference picture: its first pixel says who
            return one if frame[0, 0, 0] < 128 else other
        return torch.cat([one if face.box[0] + face.box[2] < 320 else other for face in faces])  # type: ignore[attr-defined]

    monkeypatch.setattr(converter, "embed", embed)
    for name, shade in (("left", 0), ("right", 255)):
        picture = portrait().copy()
        picture[0, 0] = shade
        write_image(place / f"{name}.png", picture, synthetic=False)
    right = [f"{place / 'right.png'}={place / 'source.png'}"]
    assert swap_target(converter, place / "two.mp4", place / "right.mp4", None, "largest", right) == 0
    assert (changed(place / "two.mp4", place / "right.mp4") == [False, True]).all()
    both = [*right, f"{place / 'left.png'}={place / 'source.png'}"]
    assert swap_target(converter, place / "two.mp4", place / "both.mp4", None, "largest", both) == 0
    assert changed(place / "two.mp4", place / "both.mp4").all()
    frame = scene(0, two=True)
    write_image(place / "frame.png", frame, synthetic=False)
    assert swap_target(converter, place / "frame.png", place / "frame-out.png", None, "largest", right) == 0
    apart = np.abs(read_image(place / "frame-out.png").astype(int) - frame).mean(axis=(0, 2))
    assert apart[:160].max() < 4 < apart[160:].max()  # the watermark changes some grey levels everywhere


def test_people_match_from_the_threshold_of_the_encoder() -> None:
    source = SourceIdentity(FaceBatch.of(torch.zeros(1, 3, 8, 8)), torch.zeros(1, 2))
    near = torch.tensor([[0.6, 0.8]])  # cosine 0.6 to the reference
    for threshold, expected in ((0.59, {0: source}), (0.61, {})):
        who = FaceAssignment(people=[IdentityMapping(torch.tensor([[1.0, 0.0]]), source, threshold)])
        assert who.of_tracks([track_at(0, 2, 10)], {0: near}) == expected


@pytest.mark.parametrize("text", ["a.png", "=a.png", "a.png=", ""])
def test_people_are_written_as_pairs(text: str, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"--map {text}: "):
        parse_mapping(text)


def track_at(start: int, stop: int, x: float, side: float = 20.0) -> Track:
    count = stop - start
    boxes = np.tile(np.array([x, 0, x + side, side]), (count, 1))
    return Track(start, boxes, np.zeros((count, 5, 2)), np.ones(count))


def test_tracks_that_a_rule_means() -> None:
    tracks = [track_at(0, 50, 100, 30), track_at(0, 50, 0), track_at(50, 80, 40), track_at(60, 80, 90, 60)]
    assert chosen_tracks(tracks, "all") == [0, 1, 2, 3]
    assert chosen_tracks(tracks, "largest") == [0, 3]  # nobody else comes in while the largest is seen
    assert chosen_tracks(tracks, "1") == [1, 2]
    assert chosen_tracks(tracks, "2") == [0, 3]


@pytest.mark.parametrize(
    ("people", "face", "expected"),
    [
        ([0, 1, 0, 1], "largest", [1, 3]),  # 72000 + 20000 against 45000 + 12000 square pixels
        ([0, 1, 2, 3], "largest", [3]),
        ([0, 1, 1, 0], "1", [1, 2]),
        ([0, 1, 0, 1], "1", [1, 3]),  # leftmost in 50 of 80 frames, and the same person afterwards
        ([0, 1, 0, 1], "2", [0, 2]),
        ([0, 1, 2, 3], "3", []),
    ],
)
def test_a_rule_means_one_person_for_the_whole_film(people: list[int], face: str, expected: list[int]) -> None:
    tracks = [track_at(0, 50, 100, 30), track_at(0, 50, 0), track_at(50, 80, 40), track_at(60, 80, 90, 60)]
    assert chosen_tracks(tracks, face, people) == expected


def test_results_say_what_they_are(
    converter: FaceSwapper, place: Path, hide: dict[str, str], expect_error: Callable[..., Any]
) -> None:
    marking = ProvenanceOptions(label=True, consent="The people shown agreed.")
    for name in ("signed.mp4", "signed.mov"):
        out = place / name
        sources = place / "source.png"
        assert swap_target(converter, place / "one.mp4", out, sources, "largest", [], provenance=marking) == 0
        assert sounds_and_times(out) == sounds_and_times(place / "one.mp4")
        report = verify(out)
        assert report.verdict == "intact" and report.xmp and report.watermark is not None and report.ledger
        assert "The people shown agreed." in json.dumps(report.plain())
    whole = bytearray((place / "signed.mp4").read_bytes())
    whole[whole.index(b"mdat") + 2000] ^= 1
    (place / "flipped.mp4").write_bytes(whole)
    assert verify(place / "flipped.mp4").verdict == "altered"
    with expect_error("o.mkv: ", hide=hide):
        swap_target(converter, place / "one.mp4", place / "o.mkv", place / "source.png", "largest", [])
    plain = ProvenanceOptions(provenance=False)
    out = place / "plain.mkv"
    assert swap_target(converter, place / "one.mp4", out, place / "source.png", "largest", [], provenance=plain) == 0
    assert len(probe(out).times) == 12


def test_preview_shows_frames_before_and_after(converter: FaceSwapper, place: Path) -> None:
    out = place / "preview.png"
    assert swap_target(converter, place / "one.mp4", out, place / "source.png", "largest", [], 3) == 0
    shown = read_image(out)
    assert shown.shape == (3 * 240, 2 * 320, 3) and is_marked(out)
    originals, swaps = shown[:, :320].reshape(3, 240, 320, 3), shown[:, 320:].reshape(3, 240, 320, 3)
    assert np.abs(originals.astype(int) - frames_of(place / "one.mp4")[[0, 6, 11]]).max() < 12  # the watermark
    assert (np.abs(originals.astype(int) - swaps).mean(axis=(1, 2, 3)) > 0.3).all()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures at two depths, two of which are broken, and a text."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(4):
        write_image(
            folder / ("more" if number % 2 else "") / f"{number}.jpg", np.roll(portrait(), number, 1), synthetic=False
        )
    (folder / "cut.jpg").write_bytes((folder / "0.jpg").read_bytes()[:900])
    write_image(folder / "cat.png", skimage.data.coins()[..., None].repeat(3, axis=2), synthetic=False)
    (folder / "notes.txt").write_text("no picture")
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    return folder


def test_broken_files_of_a_folder_are_named_and_the_rest_is_done(
    converter: FaceSwapper,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    out = tmp_path / "out"
    assert swap_target(converter, pictures, out, tmp_path / "source.png", "largest", []) == 2
    shown = capsys.readouterr()
    *lines, note, left_out = [line for line in shown.err.splitlines() if not line.startswith("swapping: ")]
    for line, name in zip(lines, ["cat.png", "cut.jpg"], strict=True):
        assert line.startswith(f"{pictures}/{name}: ")
    assert note.startswith(f"{pictures}/0.jpg (and 3 more): a head of ")
    check_message(lines[0])
    check_message(lines[1], reason=True)
    check_message(left_out)
    assert "4 of 6" in shown.out and str(out) in shown.out
    check_message(shown.out)
    names = ["0.jpg", "2.jpg", "more/1.jpg", "more/3.jpg"]
    made = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert made == [*(f"{DONE}/{name}.sha256" for name in names), NOTE, *names]
    times = {file: file.stat().st_mtime_ns for file in out.rglob("*.jpg")}
    (out / "0.jpg").unlink()
    assert swap_target(converter, pictures, out, tmp_path / "source.png", "largest", []) == 2
    again = {file: file.stat().st_mtime_ns for file in out.rglob("*.jpg")}
    assert {file for file in again if again[file] != times[file]} == {out / "0.jpg"}  # nothing is done twice
    with expect_error("out: "):
        swap_target(converter, pictures, out, tmp_path / "source.png", "all", [])
    with expect_error("out: "):
        swap_target(
            FaceSwapper(FAST_MODEL, "cpu", precision="bf16"), pictures, out, tmp_path / "source.png", "largest", []
        )
    with expect_error("pictures/out: "):
        swap_target(converter, pictures, pictures / "out", tmp_path / "source.png", "all", [])
    with expect_error("nothing: "):
        swap_target(converter, empty(tmp_path), tmp_path / "o", tmp_path / "source.png", "all", [])


def empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def test_a_list_says_what_it_did(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    """Each note is printed once for all files, with the number of others, and the faces of all are added."""
    (tmp_path / "list.csv").write_text("source,target,name\ns.png,a.png,a\ns.png,b.png,b\ns.png,c.png,c\n")
    jobs = pairs_jobs(tmp_path / "list.csv", tmp_path / "o", AssignmentFiles(), SwapOptions())
    reports = {"2": "2\n\nsmall 1", "3": "3\nlarge\nsmall 2\nsound", "4": "0\n\n\nsound"}
    assert execute(lambda: reports.__getitem__, replace(jobs, omitted=("a.txt", *"bcdefg")), {}) == 0
    shown = capsys.readouterr()
    check_message(shown.err)
    check_message(shown.out)


def test_a_folder_as_source_names_a_picture(place: Path, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    (tmp_path / "faces").mkdir()
    for pictured in (False, True):
        if pictured:
            shutil.copy(place / "source.png", tmp_path / "faces" / "b.png")
        with expect_error("faces: "):
            files = AssignmentFiles("all", tmp_path / "faces")
            target_jobs(place / "one.mp4", tmp_path / "o.mp4", files, SwapOptions())
    with expect_error("none.mp4: "):
        source = tmp_path / "faces" / "b.png"
        target_jobs(tmp_path / "none.mp4", tmp_path / "o.mp4", AssignmentFiles("all", source), SwapOptions())


def test_names_of_results() -> None:
    names = ["a.jpg", "b.bmp", "c/d.MP4", "e.avi", "f.webp"]
    made = [str(result_path(name, Path("o"))) for name in names]
    assert made == ["o/a.jpg", "o/b.bmp.png", "o/c/d.MP4", "o/e.avi.mp4", "o/f.webp"]


def test_places_that_cannot_be_right(place: Path, hide: dict[str, str], expect_error: Callable[..., Any]) -> None:
    source, video = place / "source.png", place / "one.mp4"
    for target, out, file, frames, start in [
        (video, place / "o.avi", source, None, "o.avi: "),
        (video, video, source, None, "one.mp4: "),
        (video, place / "no" / "o.mp4", source, None, "no/o.mp4: "),
        (video, place / "o.mp4", place / "none.png", None, "none.png: "),
        (source, place / "o.png", source, 3, "source.png: --preview "),
        (video, source, source, 2, "source.png: "),
    ]:
        with expect_error(start, hide=hide):
            target_jobs(target, out, AssignmentFiles("largest", file), SwapOptions(preview=frames))
        with expect_error(start, hide=hide):
            target_jobs(target, out, AssignmentFiles(mappings=((source, file),)), SwapOptions(preview=frames))


@pytest.fixture
def killed(place: Path, tmp_path: Path) -> Iterator[Path]:
    """A job on a long video that was killed after its first piece."""
    make_video(tmp_path / "long.mp4", [scene(number) for number in range(60)])
    shutil.copy(place / "source.png", tmp_path / "source.png")
    yield tmp_path


COMMAND = (
    "import sys, fsframework.inference.video as v; v.SEGMENT = 20\n"
    "from fsframework.cli.main import main; sys.argv = ['fsf', *sys.argv[1:]]; main()"
)


@pytest.mark.slow
def test_a_job_that_was_killed_goes_on(killed: Path) -> None:
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "swap",
        "--no-provenance",
        "--model",
        FAST_MODEL,
        "--runtime",
        "torch",
        "source.png",
        "long.mp4",
        "out.mp4",
        "--device",
        "cpu",
    ]
    parts = killed / ".out.mp4.parts"
    with subprocess.Popen(command, cwd=killed, stderr=subprocess.DEVNULL) as process:
        for _ in range(1200):
            if (parts / "0000.mp4").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert (parts / "0000.mp4").exists() and not (killed / "out.mp4").exists()
    shutil.copy(parts / "0000.mp4", killed / "first.mp4")
    done = subprocess.run(command, cwd=killed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "which ended, is taken over" in done.stderr and not (killed / ".out.mp4.lock").exists()
    assert not parts.exists() and len(probe(killed / "out.mp4").times) == 60
    command[-3] = "whole.mp4"
    whole = subprocess.run(command, cwd=killed, capture_output=True, text=True, check=False)
    assert whole.returncode == 0
    frames, first = frames_of(killed / "out.mp4"), frames_of(killed / "first.mp4")
    assert np.array_equal(frames[: len(first)], first)  # what was finished is kept as it is
    apart = np.abs(frames - frames_of(killed / "whole.mp4")).mean(axis=(1, 2, 3))
    assert apart.max() < 0.2, apart  # matrix products may round differently in another process


def test_a_second_process_for_one_film_is_refused(
    converter: FaceSwapper, place: Path, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    with locked(tmp_path / ".out.mp4.lock", "first"):
        note = json.loads((tmp_path / ".out.mp4.lock").read_text(encoding="utf-8"))
        hide = {f"process {os.getpid()}": "process 1", note["host"]: "HOST", note["since"]: "NOW"}
        with expect_error("out.mp4: is in work", hide=hide):
            swap_target(converter, place / "one.mp4", tmp_path / "out.mp4", place / "source.png", "largest", [])
    assert not list(tmp_path.iterdir())


def test_another_job_does_not_go_on_with_these_pieces(converter: FaceSwapper, place: Path, tmp_path: Path) -> None:
    parts = tmp_path / ".out.mp4.parts"
    parts.mkdir()
    (parts / "job.json").write_text("{}")
    (parts / "0000.mp4").write_bytes(b"of another job")
    out = tmp_path / "out.mp4"
    assert swap_target(converter, place / "one.mp4", out, place / "source.png", "largest", []) == 0
    assert len(probe(out).times) == 12


def test_a_broken_video_in_a_folder_is_named(
    converter: FaceSwapper,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    (tmp_path / "in").mkdir()
    whole = (place / "one.mp4").read_bytes()
    (tmp_path / "in" / "half.mp4").write_bytes(whole[: len(whole) // 2])
    shutil.copy(place / "one.mp4", tmp_path / "in" / "whole.mp4")
    assert swap_target(converter, tmp_path / "in", tmp_path / "out", place / "source.png", "largest", []) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "half.mp4" in line]
    assert line.startswith(f"{tmp_path}/in/half.mp4: ")
    check_message(line, reason=True)
    assert [file.name for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")] == ["whole.mp4"]


def test_sound_that_the_container_refuses_is_encoded_and_said(
    converter: FaceSwapper,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.avi", "b.avi"):
        film = [scene(number) for number in range(3)]
        make_film(tmp_path / "in" / name, film, "mpeg4", "pcm_u8", bframes=0)
    assert swap_target(converter, tmp_path / "in", tmp_path / "out", place / "source.png", "largest", []) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "sound track" in line]
    check_message(line, hide={str(tmp_path): "PLACE"})
    with av.open(str(tmp_path / "out" / "a.avi.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_any_exception_ends_one_file_and_not_the_folder(
    converter: FaceSwapper,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    check_message: Callable[..., None],
) -> None:
    swap = converter.swap_frames
    failing = iter([True])

    def fails_once(*arguments: Any) -> list[np.ndarray]:
        if next(failing, False):
            raise ValueError("of a library,\nin two lines")
        return swap(*arguments)

    for name in ("cut.jpg", "cat.png"):
        (pictures / name).unlink()
    monkeypatch.setattr(converter, "swap_frames", fails_once)
    assert swap_target(converter, pictures, tmp_path / "out", tmp_path / "source.png", "largest", []) == 1
    shown = capsys.readouterr()
    (line,) = [line for line in shown.err.splitlines() if "ValueError" in line]
    check_message(line, hide={str(pictures): "PLACE"})
    assert "3 of 4" in shown.out


def test_a_list_swaps_pictures_and_videos_and_names_what_is_broken(
    converter: FaceSwapper,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    shutil.copy(place / "source.png", tmp_path / "source.png")
    shutil.copy(place / "one.mp4", tmp_path / "film.mp4")
    write_image(tmp_path / "frame.png", scene(0), synthetic=False)
    whole = (place / "one.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    lines = ["film.mp4,film", "frame.png,frame.jpg", "half.mp4,half.mp4", "film.mp4,film.avi", "film.mp4,film.mkv"]
    (tmp_path / "list.csv").write_text("source,target,name\n" + "".join(f"source.png,{line}\n" for line in lines))
    table, out = tmp_path / "list.csv", tmp_path / "out"
    assert swap_pairs(converter, table, out) == 3
    shown = capsys.readouterr()
    errors = [line for line in shown.err.splitlines() if not line.startswith(("swapping: ", "finding faces: "))]
    places = [f"line 4: {tmp_path}/half.mp4: ", "line 5: film.avi: ", f"line 6: {out}/film.mkv: "]
    for line, start in zip(errors, places, strict=True):
        assert line.startswith(f"{table}: {start}")
    for line in errors[1:]:
        check_message(line)
    assert shown.out.startswith("2 of 5 ")
    check_message(shown.out)
    assert sorted(file.name for file in out.iterdir() if not file.name.startswith(".")) == ["film.mp4", "frame.jpg"]
    assert sounds_and_times(out / "film.mp4") == sounds_and_times(place / "one.mp4")
    assert changed(place / "one.mp4", out / "film.mp4").any(axis=1).all()
    assert [verify(out / name).verdict for name in ("film.mp4", "frame.jpg")] == ["intact"] * 2
    before = (out / "film.mp4").stat().st_mtime_ns
    (out / "frame.jpg").unlink()
    assert swap_pairs(converter, table, out) == 3
    assert (out / "film.mp4").stat().st_mtime_ns == before and (out / "frame.jpg").is_file()


@pytest.mark.parametrize(
    "pasting",
    [
        DEFAULT_PASTE,
        PasteOptions("landmarks"),
        PasteOptions(keep="occlusions"),
        PasteOptions(keep="reconstruction-errors"),
    ],
)
def test_a_steady_picture_stays_steady(
    converter: FaceSwapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pasting: PasteOptions
) -> None:
    """A video of one picture with a sensor's noise: the swap changes less from frame to frame than 1.2 times that."""
    monkeypatch.setattr(converter, "paster", Compositor(pasting, converter.size))
    rng = np.random.default_rng(0)
    still = scene(0).astype(float)
    noisy = [np.clip(still + rng.normal(0, 5, still.shape), 0, 255).astype(np.uint8) for _ in range(40)]
    source = converter.source(somebody(), "source")
    make_video(tmp_path / "still.mp4", noisy)
    video = probe(tmp_path / "still.mp4")
    tracks, sources = plan(converter, FaceAssignment("largest", source), video, None)
    before = np.stack(list(read(video))).astype(int)
    after = np.stack(list(painted(converter, video, tracks, sources, 0, 40))).astype(int)
    inside = (before != after).any(axis=(0, 3))
    steps = [np.abs(np.diff(each, axis=0)).mean(axis=(0, 3))[inside].mean() for each in (before, after)]
    assert inside.mean() > 0.02 and steps[1] < 1.2 * steps[0]


def test_a_section_of_a_film_is_the_same_alone(
    converter: FaceSwapper, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are smoothed over time from before the section, so that a resumed job ends like an uninterrupted one."""
    pasting = PasteOptions(keep="occlusions")
    monkeypatch.setattr(converter, "paster", Compositor(pasting, converter.size))
    video = probe(place / "one.mp4")
    tracks, sources = plan(converter, FaceAssignment("largest", converter.source(somebody(), "source")), video, None)
    count = len(video.times)
    whole = np.stack(list(painted(converter, video, tracks, sources, 0, count)))
    alone = np.stack(list(painted(converter, video, tracks, sources, count - 4, count)))
    assert len(alone) == 4 and np.abs(whole[-4:].astype(int) - alone).max() <= 2


def test_shares_of_a_folder_are_done_side_by_side(
    converter: FaceSwapper,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    out, sources = tmp_path / "out", tmp_path / "source.png"
    failed = [swap_target(converter, pictures, out, sources, "largest", [], shard=JobShard(k, 3)) for k in (1, 2, 3)]
    assert sum(failed) == 2
    names = ["0.jpg", "2.jpg", "more/1.jpg", "more/3.jpg"]
    made = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert made == [*(f"{DONE}/{name}.sha256" for name in names), NOTE, *names]
    printed = capsys.readouterr().out
    assert printed.count("of 2 ") == 3  # six files, two a share
    check_message(printed)
    (out / f".{NOTE}.x.json").touch()  # another share writes its note
    (out / NOTE).unlink()
    for file in out.rglob("*.jpg"):
        file.unlink()
    (out / "more").rmdir()
    shutil.rmtree(out / DONE)
    assert swap_target(converter, pictures, out, sources, "largest", [], shard=JobShard(1, 6)) == 0


def test_shares(expect_error: Callable[..., Any]) -> None:
    files = [Path(str(number)) for number in range(7)]
    shares = [JobShard.parse(f"{number}/3").of(files) for number in (1, 2, 3)]
    assert [len(share) for share in shares] == [3, 2, 2] and sorted(file for share in shares for file in share) == files
    for wrong in ("0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3"):
        with expect_error(f"--shard {wrong}: "):
            JobShard.parse(wrong)
