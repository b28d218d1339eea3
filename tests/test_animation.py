"""Moving pictures (GIF, WebP, APNG) are swapped frame by frame, with their times, repetitions and transparency."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import make_film
from films import pictures as bars
from PIL import Image
from swapping import swap_file, swap_pairs, swap_target
from synthetic_video import scene

import fsframework as fsf
from fsframework.core.errors import UserError
from fsframework.data.extract_faces import _frames
from fsframework.data.samples import somebody
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media import animation_io
from fsframework.media.animation_formats import COLOURS, WRITERS, AnimationFrame, to_palette
from fsframework.media.animation_io import Animation, is_animation, probe, read, read_targets
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.media.video_io import probe as probe_video
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify

PLAIN = ProvenanceOptions(provenance=False)
DELAYS = [100, 40, 70, 250]  # milliseconds
LOSSLESS: dict[str, dict[str, Any]] = {".gif": {}, ".webp": {"lossless": True}, ".png": {}}
Check = Callable[..., Any]


def save(file: Path, frames: list[np.ndarray], delays: list[int] | None = None, **settings: Any) -> Path:
    """Write an animation with Pillow."""
    first, *others = map(Image.fromarray, frames)
    first.save(file, save_all=True, append_images=others, duration=delays or DELAYS[: len(frames)], **settings)
    return file


def shown(file: Path) -> list[np.ndarray]:
    """The frames (H, W, 4) that Pillow decodes."""
    with Image.open(file) as image:
        frames = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            frames.append(np.array(image.convert("RGBA")))
        return frames


def facts(file: Path) -> tuple[str, list[float], int | None]:
    """The format, the delays in milliseconds, and the number of plays as the format counts them."""
    with Image.open(file) as image:
        delays = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            delays.append(image.info.get("duration", 0))
        return str(image.format), delays, image.info.get("loop")


def away(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """The largest mean difference of a frame's border, where no face is."""
    differences = [np.abs(one.astype(int) - other) for one, other in zip(before, after, strict=True)]
    return max(float(np.concatenate([each[:8].ravel(), each[-8:].ravel()]).mean()) for each in differences)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source and an animation of four frames in each format."""
    folder = tmp_path_factory.mktemp("moving")
    write_image(folder / "source.png", somebody(), synthetic=False)
    frames = [scene(3 * number) for number in range(4)]
    for suffix, settings in LOSSLESS.items():
        save(folder / f"target{suffix}", frames, loop=3, **settings)
    save(folder / "lossy.webp", frames, loop=0)
    return folder


@pytest.fixture
def hide(place: Path) -> dict[str, str]:
    return {str(place): "PLACE"}


@pytest.mark.parametrize(
    ("name", "error"), [("target.gif", 1.0), ("target.webp", 0.0), ("target.png", 0.0), ("lossy.webp", 1.5)]
)
def test_every_frame_is_swapped_and_keeps_its_time(
    converter: FaceSwapper, place: Path, tmp_path: Path, name: str, error: float
) -> None:
    out = tmp_path / name
    swap_file(converter, place / "source.png", place / name, out, provenance=PLAIN)
    assert facts(out) == facts(place / name) and is_marked(out)
    before, after = shown(place / name), shown(out)
    assert away(before, after) <= error
    assert all(
        np.abs(one.astype(int) - other)[60:180, 100:220].mean() > 2 for one, other in zip(before, after, strict=True)
    )
    assert not list(tmp_path.glob(".*.parts"))


@pytest.mark.parametrize("name", ["target.gif", "target.webp", "target.png"])
def test_results_are_signed_and_marked(converter: FaceSwapper, place: Path, tmp_path: Path, name: str) -> None:
    swap_file(converter, place / "source.png", place / name, tmp_path / name)
    report = verify(tmp_path / name)
    assert report.verdict == "intact" and report.xmp and report.watermark is not None
    assert report.manifest is not None and report.manifest.facts["watermark"] == report.watermark.payload
    assert report.watermark.looked == 4 and not report.notes


def test_other_endings_choose_other_formats(converter: FaceSwapper, place: Path, tmp_path: Path) -> None:
    swap_file(converter, place / "source.png", place / "target.gif", tmp_path / "o.mp4")
    film = probe_video(tmp_path / "o.mp4")
    assert [float(time * film.base) for time in film.times] == pytest.approx([0, 0.1, 0.14, 0.21])
    assert float(film.durations[-1] * film.base) == pytest.approx(0.25)
    swap_file(converter, place / "source.png", place / "target.gif", tmp_path / "o.apng", provenance=PLAIN)
    assert facts(tmp_path / "o.apng") == ("PNG", DELAYS, 4)  # GIF's 3 repetitions are 4 plays
    assert away(shown(place / "target.gif"), shown(tmp_path / "o.apng")) == 0


@pytest.mark.parametrize(("target", "out"), [("target.gif", "o.jpg"), ("target.webp", "o.bmp"), ("film.mp4", "o.gif")])
def test_formats_without_motion_are_refused(
    converter: FaceSwapper, place: Path, target: str, out: str, hide: dict[str, str], expect_error: Check
) -> None:
    make_film(place / "film.mp4", bars(3))
    with expect_error(f"{out}: ", hide=hide):
        swap_target(converter, place / target, place / out, place / "source.png")


def test_a_folder_a_list_and_a_preview(converter: FaceSwapper, place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    frames = [scene(3 * number) for number in range(2)]
    save(folder / "a.gif", frames)
    save(folder / "b.avif", frames)
    Image.fromarray(frames[0]).save(folder / "still.gif")
    assert swap_target(converter, folder, tmp_path / "out", place / "source.png", provenance=PLAIN) == 0
    written = {file.name: facts(file)[0] for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")}
    assert written == {"a.gif": "GIF", "b.avif.webp": "WEBP", "still.gif.png": "PNG"}
    assert len(shown(tmp_path / "out" / "b.avif.webp")) == 2
    (tmp_path / "list.csv").write_text(
        f"source,target,name\n{place / 'source.png'},in/a.gif,one\n{place / 'source.png'},in/b.avif,two\n"
        f"{place / 'source.png'},in/a.gif,three.mp4\n"
    )
    assert swap_pairs(converter, tmp_path / "list.csv", tmp_path / "pairs", provenance=PLAIN) == 0
    names = {file.name for file in (tmp_path / "pairs").iterdir() if not file.name.startswith(".")}
    assert names == {"one.gif", "two.webp", "three.mp4"}
    swap_target(converter, folder / "a.gif", tmp_path / "preview.png", place / "source.png", preview=2)
    assert read_image(tmp_path / "preview.png").shape == (480, 640, 3)


def test_people_are_told_apart(converter: FaceSwapper, place: Path, tmp_path: Path) -> None:
    target = save(tmp_path / "two.png", [scene(number, two=True) for number in range(3)])
    swap_file(converter, place / "source.png", target, tmp_path / "o.png", face="2", provenance=PLAIN)
    for before, after in zip(shown(target), shown(tmp_path / "o.png"), strict=True):
        change = np.abs(before.astype(int) - after).max(axis=(0, 2))
        assert change[:150].max() == 0 < change[170:].max()


def test_the_python_interface(
    converter: FaceSwapper, place: Path, tmp_path: Path, hide: dict[str, str], expect_error: Check
) -> None:
    pipeline = fsf.SwapPipeline(converter)
    out = pipeline.swap_video(place / "source.png", place / "target.webp", tmp_path / "o.webp")
    assert len(shown(out)) == 4
    with expect_error("target.webp: ", hide=hide):
        pipeline.swap(place / "source.png", place / "target.webp")


def test_every_second_is_extracted(place: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "a.gif", [scene(3 * number) for number in range(3)], [600, 600, 600])
    assert [index for index, _ in _frames(source, 1.0)] == [0, 2]
    assert [index for index, _ in _frames(place / "target.webp", 0)] == [0, 1, 2, 3]


def see_through(number: int) -> np.ndarray:
    """A frame (48, 64, 4) with a square that moves and an edge of half transparency."""
    frame = np.zeros((48, 64, 4), np.uint8)
    frame[8:40, 8 * number : 8 * number + 24] = (200, 90, 30, 255)
    frame[8:40, 8 * number + 24 : 8 * number + 26] = (20, 90, 130, 128)
    return frame


def copied(source: Path, out: Path, change: Callable[[np.ndarray], np.ndarray] = np.copy) -> Animation:
    """Write an animation whose frames are a function of another's; return the original."""
    animation = probe(source)
    assert isinstance(animation, Animation)
    segments = [out.with_suffix(f".{start}.zip") for start in range(0, len(animation.times), 3)]
    for number, segment in enumerate(segments):
        stop = min(3 * number + 3, len(animation.times))
        assert (
            animation_io.write(segment, animation, map(change, read(animation, 3 * number, stop))) == stop - 3 * number
        )
    animation_io.join(segments, animation, out)
    return animation


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_transparency_is_kept(tmp_path: Path, suffix: str) -> None:
    frames = [see_through(number) for number in range(4)]
    source = save(
        tmp_path / f"in{suffix}",
        frames,
        disposal=2,
        **(LOSSLESS[suffix] | ({"exact": True} if suffix == ".webp" else {})),
    )
    animation = copied(source, tmp_path / f"out{suffix}")
    assert animation.is_transparent
    for before, after in zip(shown(source), shown(tmp_path / f"out{suffix}"), strict=True):
        np.testing.assert_array_equal(before[..., 3], after[..., 3])
        np.testing.assert_array_equal(before[before[..., 3] > 0], after[before[..., 3] > 0])


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_frames_that_are_alike_stay_frames(tmp_path: Path, suffix: str) -> None:
    """Pillow merges equal frames, so the file is made by this module, and Pillow counts what it holds."""
    source = save(tmp_path / "in.png", [scene(0), scene(4), scene(8), scene(9)], loop=1)
    copied(source, tmp_path / f"out{suffix}", lambda frame: np.full_like(frame, 90))
    assert facts(tmp_path / f"out{suffix}")[1] == DELAYS
    assert all((frame[..., :3] == 90).all() for frame in shown(tmp_path / f"out{suffix}"))


@pytest.mark.parametrize(("plays", "loop"), [(0, 0), (1, None), (2, 1), (5, 4)])
def test_plays_of_gif(tmp_path: Path, plays: int, loop: int | None) -> None:
    settings: dict[str, Any] = {} if loop is None else {"loop": loop}
    source = save(tmp_path / "in.gif", bars(3), **settings)
    assert copied(source, tmp_path / "out.gif").plays == plays
    assert facts(tmp_path / "out.gif")[2] == loop
    copied(source, tmp_path / "out.webp")
    assert facts(tmp_path / "out.webp")[2] == plays


def test_delays_are_exact(tmp_path: Path) -> None:
    """APNG states fractions of a second, which Pillow rounds when it writes."""
    source = save(tmp_path / "in.png", bars(3), [100, 100, 100])
    content = bytearray(source.read_bytes())
    at = -1
    for wanted in ((1, 30), (1001, 30000), (0, 100)):
        at = content.index(b"fcTL", at + 1)
        content[at + 24 : at + 28] = struct.pack(">HH", *wanted)
        content[at + 30 : at + 34] = struct.pack(">I", zlib.crc32(content[at : at + 30]))
    source.write_bytes(content)
    animation = copied(source, tmp_path / "out.png")
    assert animation.delays == (Fraction(1, 30), Fraction(1001, 30000), 0)
    assert probe(tmp_path / "out.png").delays == animation.delays  # type: ignore[attr-defined]
    assert animation.times == (0, 3000, 6003) and animation.durations[-1] == 9000  # browsers show 0 as 0.1 s
    copied(source, tmp_path / "out.gif")
    assert facts(tmp_path / "out.gif")[1] == [30, 40, 0]  # hundredths: 3.33 and 6.67 are rounded, not their difference


def test_an_image_before_the_animation_is_left_out(tmp_path: Path) -> None:
    source = save(tmp_path / "in.png", bars(4), [100] * 3, default_image=True)
    animation = copied(source, tmp_path / "out.png")
    assert len(animation.times) == 3
    np.testing.assert_array_equal(shown(tmp_path / "out.png")[0], shown(source)[1])


def test_profiles_are_kept(tmp_path: Path) -> None:
    from test_colour_profile import P3

    source = save(tmp_path / "in.webp", bars(3), lossless=True, icc_profile=P3)
    for suffix in (".webp", ".png"):
        copied(source, tmp_path / f"out{suffix}")
        with Image.open(tmp_path / f"out{suffix}") as image:
            assert image.info["icc_profile"] == P3
        assert away(shown(source), shown(tmp_path / f"out{suffix}")) == 0
    copied(source, tmp_path / "out.gif")
    expected = [target.frame for target in read_targets(probe(source))]  # type: ignore[arg-type]
    assert np.abs(shown(tmp_path / "out.gif")[1][..., :3].astype(int) - expected[1]).max() == 0


def test_stills_and_other_files_are_no_animations(tmp_path: Path) -> None:
    for suffix in (".gif", ".webp", ".png", ".tif"):
        Image.fromarray(bars(1)[0]).save(tmp_path / f"still{suffix}")
        assert not is_animation(tmp_path / f"still{suffix}")
    Image.fromarray(bars(1)[0]).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(bars(1)[0])])
    (tmp_path / "cut.gif").write_bytes(b"GIF89a")
    assert not any(is_animation(tmp_path / name) for name in ("pages.tif", "cut.gif", "absent.gif"))
    save(tmp_path / "moves.jpg.png", bars(2)).rename(tmp_path / "moves.jpg")
    assert is_animation(tmp_path / "moves.jpg")


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_damaged_animations_are_one_line(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"in{suffix}", [scene(3 * number) for number in range(4)], **LOSSLESS[suffix]).read_bytes()
    refused = 0
    for share in (0.3, 0.6, 0.9):
        (tmp_path / f"cut{suffix}").write_bytes(whole[: int(share * len(whole))])
        if suffix == ".gif" and not is_animation(tmp_path / "cut.gif"):
            continue  # nothing of a second frame is left: it is a still picture
        with pytest.raises(UserError, match=r"cut\.\w+: .*; ") as caught:
            (probe if is_animation(tmp_path / f"cut{suffix}") else read_image)(tmp_path / f"cut{suffix}")
        assert "\n" not in str(caught.value)
        refused += 1
    assert refused


def test_a_canvas_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "in.gif", bars(3)).read_bytes())
    for side, reader in ((12000, probe), (65535, read_image)):
        content[6:10] = struct.pack("<HH", side, side)
        (tmp_path / "bomb.gif").write_bytes(content)
        with pytest.raises(UserError, match=r"bomb\.gif: has .* pixels"):
            reader(tmp_path / "bomb.gif")


@pytest.mark.parametrize("suffix", WRITERS)
def test_frames_are_written_as_they_come(tmp_path: Path, suffix: str) -> None:
    """The writers hold one frame, so that memory does not grow with the length."""
    animation = probe(save(tmp_path / "in.png", bars(20), [50] * 20))
    assert isinstance(animation, Animation)
    file = io.BytesIO()
    sizes: list[int] = []

    def frames() -> Iterator[AnimationFrame]:
        for picture in bars(20):
            sizes.append(file.tell())
            yield AnimationFrame(picture, picture, Fraction(1, 20))

    WRITERS[suffix](file, frames(), animation)
    assert len(sizes) == 20 and (np.diff(sizes) > 0)[1:].all()


def test_palettes_keep_the_colours_of_the_original() -> None:
    rng = np.random.default_rng(1)
    table = rng.integers(0, 256, (256, 3)).astype(np.uint8)
    before = table[np.sort(rng.integers(0, 256, (64, 64)).ravel()).reshape(64, 64)]
    palette, indices = to_palette(before, before, COLOURS)
    np.testing.assert_array_equal(palette[indices], before)
    after = before.copy()
    after[20:40, 20:40] = rng.integers(0, 256, (20, 20, 3))
    palette, indices = to_palette(after, before, COLOURS)
    assert len(palette) == COLOURS
    same = (palette[indices] == before).all(axis=2)
    assert same[:20].mean() > 0.85  # 24 of 256 colours are the face's
    distances = ((palette[None].astype(int) - after[30, 20:40, None].astype(int)) ** 2).sum(axis=2)
    np.testing.assert_array_equal(
        distances.min(axis=1), np.take_along_axis(distances, indices[30, 20:40, None].astype(int), 1)[:, 0]
    )
    clear = np.dstack([after, np.full((64, 64), 255, np.uint8)])
    clear[:10, :, 3] = 127
    palette, indices = to_palette(clear, before, COLOURS - 1)
    assert (indices[:10] == 255).all() and (indices[10:] < 255).all()
