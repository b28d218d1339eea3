"""Keep what a stream states of its pixels: colours, aspect ratio, rotation and mirroring."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from films import PICTURE, film

from fsframework.media.video_encoder import VideoOptions, default_plan
from fsframework.media.video_io import probe, read, write
from fsframework.media.video_join import join
from fsframework.media.video_planes import without_siting


def again(source: Path, out: Path) -> Path:
    """Decode a film and write it again, as a swap does outside of the faces."""
    video = probe(source)
    segment = out.with_name("segment.mp4")
    write(segment, video, read(video), plan=default_plan(video, VideoOptions("x264", 0)))
    join([segment], video, out)
    return out


def shown(file: Path) -> np.ndarray:
    """Return the frames (n, H, W, 3) of a film by FFmpeg's most accurate conversion."""
    kind = av.video.reformatter.Interpolation
    flags = kind.BICUBIC | kind.ACCURATE_RND | kind.FULL_CHR_H_INT | kind.FULL_CHR_H_INP
    with av.open(str(file)) as container:
        # The codec of some targets does not state where chroma samples lie, and H.264 does.
        bare = [without_siting(frame) for frame in container.decode(video=0)]
        frames = [frame.to_ndarray(format="rgb24", interpolation=flags) for frame in bare]
    return np.stack(frames).astype(int)


FULL, LIMITED = 2, 1
FORMATS = [
    ("yuv420p", (0, 2, 2, 2), "libx264"),
    ("yuv420p", (LIMITED, 1, 1, 1), "libx264"),
    ("yuv420p", (LIMITED, 6, 6, 6), "libx264"),
    ("yuv420p", (LIMITED, 9, 9, 14), "libx264"),
    ("yuv420p", (FULL, 5, 1, 1), "libx264"),
    ("yuvj420p", (FULL, 1, 1, 1), "libx264"),
    ("yuv422p", (LIMITED, 1, 1, 1), "libx264"),
    ("yuv444p", (FULL, 1, 1, 1), "libx264"),
    ("yuv420p10le", (LIMITED, 1, 1, 1), "libx264"),
    ("yuv422p10le", (LIMITED, 9, 9, 1), "libx264"),
    ("yuv444p10le", (LIMITED, 1, 1, 1), "ffv1"),
    ("yuv422p12le", (LIMITED, 1, 1, 1), "ffv1"),
    ("yuvj422p", (FULL, 1, 1, 1), "libx264"),
    ("yuvj444p", (FULL, 6, 1, 1), "libx264"),
    ("yuv411p", (LIMITED, 6, 6, 6), "ffv1"),
    ("yuv440p", (LIMITED, 6, 6, 6), "ffv1"),
    ("yuv410p", (LIMITED, 6, 6, 6), "ffv1"),
    ("nv12", (LIMITED, 1, 1, 1), "libx264"),
    ("yuva420p", (LIMITED, 1, 1, 1), "ffv1"),
    ("yuva444p10le", (LIMITED, 1, 1, 1), "ffv1"),
    ("gray10le", (LIMITED, 1, 1, 1), "ffv1"),
    ("gbrp10le", (0, 2, 2, 2), "ffv1"),
    ("rgb24", (0, 2, 2, 2), "libx264rgb"),
    ("gray", (0, 2, 2, 2), "libx264"),
    ("bgr0", (0, 2, 2, 2), "ffv1"),
]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("pixel_format", "colours", "codec"), FORMATS)
def test_pixels_are_kept_within_half_a_level(
    tmp_path: Path, pixel_format: str, colours: tuple[int, ...], codec: str, times: int
) -> None:
    source = film(tmp_path / "0.mkv", pixel_format, colours, codec)
    before = shown(source)
    file = source
    for number in range(times):
        file = again(file, tmp_path / f"{number + 1}.mp4")
    after = shown(file)
    difference = float(np.abs(after - before).mean())
    assert difference < 0.5
    bias = float(np.abs((after - before).mean(axis=(0, 1, 2))).max())
    assert bias < 0.25


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_tags_of_colours_and_the_shape_of_pixels_are_kept(tmp_path: Path, suffix: str) -> None:
    colours = (LIMITED, 9, 9, 14)
    source = film(tmp_path / "in.mp4", colours=colours, aspect=Fraction(4, 3))
    out = again(source, tmp_path / f"out{suffix}")
    assert probe(out).colours == colours and probe(out).pixel_aspect == Fraction(4, 3)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.display_aspect_ratio == Fraction(16, 9)


def test_rgb_films_get_tags_of_what_is_written(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", "bgr0", codec="ffv1")
    video = probe(again(source, tmp_path / "out.mp4"))
    assert video.colours[:2] == (LIMITED, 6)


ONE = 1 << 16
# Where x and y of the stored frame go, and what a player makes of the stored pixels.
ORIENTATIONS = {
    "plain": ((ONE, 0, 0, ONE), lambda pixels: pixels),
    "mirrored": ((-ONE, 0, 0, ONE), lambda pixels: pixels[:, ::-1]),
    "upside down": ((-ONE, 0, 0, -ONE), lambda pixels: pixels[::-1, ::-1]),
    "flipped": ((ONE, 0, 0, -ONE), lambda pixels: pixels[::-1]),
    "clockwise": ((0, ONE, -ONE, 0), lambda pixels: np.rot90(pixels, -1)),
    "counter-clockwise": ((0, -ONE, ONE, 0), lambda pixels: np.rot90(pixels)),
    "transposed": ((0, ONE, ONE, 0), lambda pixels: pixels.transpose(1, 0, 2)),
    "transverse": ((0, -ONE, -ONE, 0), lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_films_are_shown_upright(tmp_path: Path, name: str) -> None:
    (a, b, c, d), shown = ORIENTATIONS[name]
    source = film(tmp_path / "in.mp4", matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30), aspect=Fraction(4, 3))
    video = probe(source)
    expected = shown(PICTURE)
    assert (video.height, video.width) == expected.shape[:2]
    assert video.pixel_aspect == (Fraction(3, 4) if a == 0 else Fraction(4, 3))
    for frame in (next(read(video)), next(read(probe(again(source, tmp_path / "out.mp4"))))):
        assert np.abs(frame.astype(int) - expected).mean() < 3
