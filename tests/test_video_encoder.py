"""Encoder, quality, bit depth, high dynamic range and interlacing of swapped films."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from films import PICTURE, film, make_film, seen
from swapping import FAST_MODEL
from synthetic_video import make_video, scene

from fsframework.data.samples import somebody
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.jobs import AssignmentFiles, SwapOptions, target_jobs
from fsframework.inference.runner import run_jobs
from fsframework.media import video_encoder
from fsframework.media.image_io import write_image
from fsframework.media.video_encoder import (
    CODECS,
    INTERLACED,
    MAX_QUALITY,
    VideoOptions,
    _opens,
    plan_encoder,
)
from fsframework.media.video_info import HLG, PQ
from fsframework.media.video_io import probe, read, write
from fsframework.media.video_join import join
from fsframework.media.video_planes import BICUBIC, visible_light
from fsframework.media.video_sound import FORMATS
from fsframework.provenance.options import ProvenanceOptions

LIMITED, FULL = 1, 2
DEEP = (LIMITED, 1, 1, 1)
WRITTEN = {"x264": "h264", "x265": "hevc", "svt-av1": "libdav1d"}  # names of decoders


def swapped(
    source: Path,
    out: Path,
    options: VideoOptions | None = None,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """Write a film as a swap does; `change` paints each frame."""
    video = probe(source)
    plan = plan_encoder(video, options or VideoOptions(), FORMATS[out.suffix])
    segment = out.with_name("segment.mp4")
    write(segment, video, (frame if change is None else change(frame) for frame in read(video)), plan=plan)
    join([segment], video, out)
    return out


def stream_facts(file: Path) -> tuple[str, str, str]:
    """Return the decoder, the pixel format and the codec's tag of a film."""
    with av.open(str(file)) as container:
        context = container.streams.video[0].codec_context
        return context.name, str(context.pix_fmt), context.codec_tag


def samples(file: Path, plane: int = 0) -> np.ndarray:
    """Return a plane (n, h, w) of the frames of a film of a planar format."""
    planes = []
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            kind: Any = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
            each: Any = frame.planes[plane]
            planes.append(np.frombuffer(each, kind).reshape(each.height, -1)[:, : each.width].astype(int))
    return np.stack(planes)


@pytest.mark.parametrize("encoder", ["h265", "x266", "", "libx264 "])
def test_an_unknown_encoder_is_refused(
    encoder: str, expect_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_encoder, "_hardware", lambda: ["h264_nvenc"])
    with expect_error("encoder: "):
        VideoOptions(encoder)


@pytest.mark.parametrize(
    ("encoder", "quality"), [("auto", 52), ("auto", -1), ("x264", 52), ("x265", 99), ("svt-av1", 64), ("h264_qsv", 52)]
)
def test_a_quality_out_of_range_is_refused(encoder: str, quality: int, expect_error: Callable[..., Any]) -> None:
    with expect_error("quality: "):
        VideoOptions(encoder, quality)


@pytest.mark.parametrize("name", CODECS)
def test_ranges_of_quality_end_where_the_encoder_does(tmp_path: Path, name: str) -> None:
    source = film(tmp_path / "in.mkv")
    sizes = [
        swapped(source, tmp_path / "out.mp4", VideoOptions(name, quality)).stat().st_size
        for quality in (0, MAX_QUALITY.get(name, 51))
    ]
    assert sizes[0] > 2 * sizes[1]


def test_an_encoder_that_does_not_open_is_refused_before_any_work(
    tmp_path: Path, expect_error: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_encoder, "_hardware", lambda: ["h264_nvenc", "hevc_qsv"])
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    target = film(tmp_path / "in.mp4")
    # No machine has both.
    name = "h264_nvenc" if not _opens("h264_nvenc") else "hevc_qsv"
    other = {"h264_nvenc": "hevc_qsv", "hevc_qsv": "h264_nvenc"}[name]
    monkeypatch.setattr(video_encoder, "_opens", lambda each: each not in (name, other) and _opens(each))
    with expect_error(f"encoder: {name} ", hide={name: "HARDWARE"}):
        target_jobs(target, tmp_path / "out.mp4", _of(tmp_path), SwapOptions(video=VideoOptions(name)))
    for software in CODECS:
        assert _opens(software)


def _of(folder: Path) -> AssignmentFiles:
    return AssignmentFiles("largest", folder / "source.png")


@pytest.mark.parametrize(("target", "preview"), [("in.png", None), ("in.mp4", 2)])
def test_options_of_films_are_refused_for_pictures(
    tmp_path: Path, expect_error: Callable[..., Any], target: str, preview: int | None
) -> None:
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    write_image(tmp_path / "in.png", somebody(), synthetic=False)
    film(tmp_path / "in.mp4")
    options = SwapOptions(preview=preview, video=VideoOptions("x265"))
    with expect_error("out.png: "):
        target_jobs(tmp_path / target, tmp_path / "out.png", _of(tmp_path), options)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("encoder", CODECS)
def test_the_stream_has_the_codec_and_the_depth(
    tmp_path: Path, encoder: str, pixel_format: str, suffix: str, expect_error: Callable[..., Any]
) -> None:
    source = film(tmp_path / "in.mkv", pixel_format, DEEP, "ffv1")
    if (encoder, suffix) == ("svt-av1", ".mov"):
        with expect_error("in.mkv: "):
            swapped(source, tmp_path / "out.mov", VideoOptions(encoder))
        return
    out = swapped(source, tmp_path / f"out{suffix}", VideoOptions(encoder))
    codec, written, tag = stream_facts(out)
    assert (codec, written) == (WRITTEN[encoder], pixel_format)
    if encoder == "x265" and suffix != ".mkv":
        assert tag == "hvc1"  # Apple's players refuse hev1
    assert len(samples(out)) == 5
    difference = np.abs(samples(out) - samples(source)).mean()
    assert difference < (2 if pixel_format == "yuv420p" else 8)


@pytest.mark.parametrize("encoder", CODECS)
@pytest.mark.parametrize("cut", [3, 4])
def test_a_short_last_segment_is_joined(tmp_path: Path, encoder: str, cut: int) -> None:
    """Later segments begin with their own frames of the target, and x265 states wrong times after one or two frames."""
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p10le"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.roll(PICTURE, 24 * number, axis=1), format="rgb24")
            frame = frame.reformat(format="yuv420p10le")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    video = probe(source)
    plan = plan_encoder(video, VideoOptions(encoder, 4), "mp4")
    frames = list(read(video))
    segments = [tmp_path / "0.mp4", tmp_path / "1.mp4"]
    assert write(segments[0], video, frames[:cut], 0, plan) == cut
    assert write(segments[1], video, frames[cut:], cut, plan) == 5 - cut
    join(segments, video, tmp_path / "out.mp4")
    apart = np.abs(samples(tmp_path / "out.mp4") - samples(source)).mean(axis=(1, 2))
    assert apart.shape == (5,) and apart.max() < 8
    assert np.allclose(seen(tmp_path / "out.mp4"), [0, 0.04, 0.08, 0.12, 0.16])


@pytest.mark.parametrize(("pixel_format", "expected"), [("yuv420p", "h264"), ("yuv420p10le", "hevc")])
def test_auto_writes_what_players_show(tmp_path: Path, pixel_format: str, expected: str) -> None:
    source = film(tmp_path / "in.mkv", pixel_format, DEEP, "ffv1")
    assert stream_facts(swapped(source, tmp_path / "out.mp4"))[:2] == (expected, pixel_format)


@pytest.mark.parametrize("encoder", CODECS)
def test_quality_is_that_of_the_user(tmp_path: Path, encoder: str) -> None:
    source = film(tmp_path / "in.mkv")
    sizes, errors = [], []
    for quality in (4, 20, 40):
        out = swapped(source, tmp_path / "out.mp4", VideoOptions(encoder, quality))
        sizes.append(out.stat().st_size)
        errors.append(np.abs(samples(out) - samples(source)).mean())
    assert sizes[0] > sizes[1] > sizes[2] and errors[0] < errors[1] < errors[2]


def test_sizes_that_an_encoder_refuses_are_named(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    source = film(tmp_path / "in.mkv", "yuv444p", codec="ffv1", pixels=PICTURE[:119, :159])
    with expect_error("in.mkv: "):
        plan_encoder(probe(source), VideoOptions("svt-av1"), "mp4")
    assert stream_facts(swapped(source, tmp_path / "out.mp4"))[:2] == ("h264", "yuv444p")


@pytest.mark.parametrize(
    ("pixel_format", "encoder", "expected", "count"),
    [
        ("yuv422p10le", "x265", "yuv422p10le", 0),
        ("yuv422p10le", "svt-av1", "yuv420p10le", 1),
        ("yuv444p", "svt-av1", "yuv420p", 1),
        ("yuv444p", "x264", "yuv444p", 1),
        ("yuv444p12le", "x265", "yuv444p10le", 1),
        ("gbrp10le", "auto", "yuv444p10le", 0),
        ("gray10le", "auto", "yuv420p10le", 0),
        ("yuv420p", "svt-av1", "yuv420p", 0),
    ],
)
def test_what_an_encoder_does_not_write_is_said(
    tmp_path: Path, check_message: Callable[..., None], pixel_format: str, encoder: str, expected: str, count: int
) -> None:
    plan = plan_encoder(probe(film(tmp_path / "in.mkv", pixel_format, codec="ffv1")), VideoOptions(encoder), "mp4")
    assert (plan.pixel_format, len(plan.notes)) == (expected, count)
    for note in plan.notes:
        check_message(note)


SHIFTED = (slice(30, 80), slice(50, 110))  # rows and columns of a painted face


def _painted(frame: np.ndarray) -> np.ndarray:
    frame = frame.copy()
    frame[SHIFTED] = (200, 120, 90)
    return frame


@pytest.mark.parametrize(
    ("pixel_format", "colours"),
    [
        ("yuv420p10le", (LIMITED, 1, 1, 1)),
        ("yuv422p10le", (LIMITED, 6, 6, 6)),
        ("yuv444p10le", (LIMITED, 9, 9, 14)),
        ("yuv420p12le", (LIMITED, 9, 9, 14)),
        ("yuvj422p", (FULL, 5, 1, 1)),
        ("yuv444p", (LIMITED, 1, 1, 1)),
        ("yuvj444p", (FULL, 6, 1, 1)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_only_what_is_painted_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixel_format: str, colours: tuple[int, ...], turned: bool
) -> None:
    """Elsewhere samples are equal in the target's own depth; the painted part has the painted colour."""
    monkeypatch.setitem(CODECS, "x264", "ffv1")  # lossless in every depth
    one = 1 << 16
    matrix = (0, -one, 0, one, 0, 0, 0, 0, 1 << 30) if turned else None  # a quarter turn
    codec = "libx265" if pixel_format.endswith("le") else "libx264"
    quiet = {"x265-params": "log-level=none"}
    source = film(tmp_path / "in.mov", pixel_format, colours, codec, matrix=matrix, options=quiet)
    video = probe(source)
    assert video.turns == (1 if turned else 0)
    plan = video_encoder._plan(video, VideoOptions("x264"), "x264")
    assert plan is not None
    plan = replace(plan, options={})
    segment = tmp_path / "segment.mkv"
    monkeypatch.setattr("fsframework.media.video_io.mp4_options", lambda _: {})
    opening = av.open
    monkeypatch.setattr(av, "open", lambda file, *mode, **more: opening(file, *mode, **{**more, **_matroska(mode)}))
    write(segment, video, map(_painted, read(video)), plan=plan)
    for plane in range(3):
        before, after = samples(source, plane), samples(segment, plane)
        if pixel_format.endswith("12le"):
            before = np.clip((before + 2) >> 2, 0, 1023)
        if turned:
            if before.shape[1:] != after.shape[2:0:-1]:  # 4:2:2 becomes 4:4:4
                continue
            before = np.rot90(before, 1, axes=(1, 2))
        down, across = video.height // after.shape[1], video.width // after.shape[2]
        outside = np.ones(after.shape[1:], bool)
        outside[
            SHIFTED[0].start // down : SHIFTED[0].stop // down, SHIFTED[1].start // across : SHIFTED[1].stop // across
        ] = 0
        assert np.abs(before - after)[:, outside].max() <= (1 if pixel_format.endswith("12le") else 0)
    shown = next(read(replace(probe(segment), colours=colours)))
    inside = shown[SHIFTED][4:-4, 4:-4].astype(int)
    assert np.abs(inside - (200, 120, 90)).mean() < 1.5


def _matroska(mode: tuple[str, ...]) -> dict[str, str]:
    return {"format": "matroska"} if mode == ("w",) else {}


def test_light_above_white_is_kept_and_does_not_shine_through(tmp_path: Path) -> None:
    """Limited range holds luma above white, which RGB of 8 bits does not."""
    bright = tmp_path / "bright.mkv"
    with av.open(str(bright), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p10le"
        stream.codec_context.color_range = LIMITED
        for number in range(3):
            frame = av.VideoFrame(160, 120, "yuv420p10le")
            for plane, value in zip(frame.planes, (1015, 512, 512), strict=True):  # white is 940
                plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())

    def painted(frame: np.ndarray) -> np.ndarray:
        frame = frame.copy()
        frame[30:80, 50:110] = 128
        return frame

    luma = samples(swapped(bright, tmp_path / "out.mp4", VideoOptions("x265", 0), painted))[1]
    assert np.abs(luma[:20] - 1015).max() <= 2
    assert np.abs(luma[40:70, 60:100] - (64 + 128 / 255 * 876)).max() <= 10


def light_of(picture: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB, in units of diffuse white."""
    values = picture / 255
    return np.asarray(np.where(values < 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4))


def pq(light: np.ndarray) -> np.ndarray:
    """Return codes (uint16) of SMPTE ST 2084 for light, white at 203 cd/m2."""
    power = (light * 203 / 10_000) ** (2610 / 16384)
    code = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    return np.rint(code * 65535).astype(np.uint16)


DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
HDR10 = {"x265-params": f"log-level=none:master-display={DISPLAY}:max-cll=1000,400", "crf": "2"}


@pytest.mark.parametrize("encoder", ["auto", *CODECS])
@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_high_dynamic_range_keeps_its_tags(tmp_path: Path, encoder: str, transfer: int) -> None:
    colours = (LIMITED, 9, 9, transfer)
    source = film(tmp_path / "in.mp4", "yuv420p10le", colours, "libx265", options=HDR10, pixels=pq(light_of(PICTURE)))
    video = probe(source)
    assert video.is_hdr and video.depth == 10
    places = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329]
    assert np.allclose([float(value) for value in video.mastering], [*places, 0.005, 1000], atol=1e-4)
    assert video.light_level == (1000, 400)
    found = probe(swapped(source, tmp_path / "out.mp4", VideoOptions(encoder, 4)))
    assert (found.colours, found.depth, found.light_level) == (colours, 10, (1000, 400))
    assert np.allclose([float(value) for value in found.mastering], [*places, 0.005, 1000], atol=1e-3)
    assert np.abs(samples(tmp_path / "out.mp4") - samples(source)).mean() < 4


def test_networks_see_pq_as_srgb_and_paint_in_pq(tmp_path: Path) -> None:
    light = light_of(PICTURE)
    colours = (LIMITED, 9, 9, PQ)
    source = film(tmp_path / "in.mkv", "yuv444p10le", colours, "libx265", options=HDR10, pixels=pq(light))
    video = probe(source)
    frame = next(read(video)).astype(int)
    dim = (light < 0.75).all(axis=2)
    assert dim.mean() > 0.7
    assert np.abs(frame - PICTURE)[dim].mean() < 2
    assert np.abs(next(read(video, rough=True)).astype(int) - frame).mean() < 3
    out = swapped(source, tmp_path / "out.mp4", VideoOptions("x265", 0), _painted)
    with av.open(str(out)) as container:
        decoded = next(container.decode(video=0)).to_ndarray(format="rgb48le", interpolation=BICUBIC)
    codes = pq(light_of(np.array([200, 120, 90])))
    assert np.abs(decoded[SHIFTED][4:-4, 4:-4].astype(int) - codes).mean() / 65535 < 0.006
    assert np.abs(next(read(probe(out))).astype(int) - frame)[:28].mean() < 1.5


def test_brighter_light_is_shown_brighter() -> None:
    table = visible_light().astype(int)
    assert (np.diff(table) >= 0).all() and table[0] == 0 and table[-1] == 255
    assert 225 < table[pq(np.array(1.0))] < 240


@pytest.mark.parametrize("space", [8, 14])
def test_colours_that_cannot_be_converted_are_refused(
    tmp_path: Path, space: int, expect_error: Callable[..., Any]
) -> None:
    video = replace(probe(film(tmp_path / "in.mp4")), colours=(LIMITED, space, 9, 1))
    with expect_error("in.mp4: "):
        plan_encoder(video, VideoOptions(), "mp4")


def test_high_dynamic_range_is_refused_where_eight_bits_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    source = film(tmp_path / "in.mp4", "yuv420p10le", (LIMITED, 9, 9, PQ), "libx265", options=HDR10)
    monkeypatch.setitem(CODECS, "svt-av1", "mpeg4")
    with expect_error("in.mp4: "):
        plan_encoder(probe(source), VideoOptions("svt-av1"), "mp4")


def test_metadata_of_frames_that_is_lost_is_said(tmp_path: Path, check_message: Callable[..., None]) -> None:
    video = replace(probe(film(tmp_path / "in.mp4")), dynamic=("Dolby Vision", "HDR10+"))
    (note,) = plan_encoder(video, VideoOptions(), "mp4").notes
    check_message(note)


@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("prores_ks", "yuva444p10le"), ("qtrle", "argb"), ("png", "rgba"), ("png", "rgb24")]
)
def test_transparency_that_is_lost_is_said(
    tmp_path: Path, codec: str, pixel_format: str, check_message: Callable[..., None]
) -> None:
    layers = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 200, np.uint8)])

    def prepare(stream: Any) -> None:
        stream.pix_fmt = pixel_format

    source = make_film(tmp_path / "in.mov", [layers] * 2, codec, None, bframes=0, prepare=prepare)
    notes = [note for note in plan_encoder(probe(source), VideoOptions(), "mp4").notes if "alpha" in note]
    assert len(notes) == ("a" in pixel_format)
    for note in notes:
        check_message(note)


@pytest.mark.parametrize("order", ["top", "bottom"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_interlaced_films_stay_interlaced(tmp_path: Path, order: str, suffix: str) -> None:
    fields = {"x264-params": "tff=1" if order == "top" else "bff=1", "preset": "medium"}
    source = film(tmp_path / "in.mp4", colours=DEEP, options=fields, flags=INTERLACED)
    assert probe(source).field_order == order
    out = swapped(source, tmp_path / f"out{suffix}", VideoOptions("auto", 0))
    assert probe(out).field_order == order
    assert np.array_equal(samples(out), samples(source))  # crf 0 is lossless at 8 bits


def test_interlacing_that_cannot_be_kept_is_said(tmp_path: Path, check_message: Callable[..., None]) -> None:
    source = film(tmp_path / "in.mpg", codec="mpeg2video", flags=INTERLACED)
    assert probe(source).field_order == "bottom"  # FFmpeg's frames have no top field first
    for encoder in ("x265", "svt-av1"):
        plan = plan_encoder(probe(source), VideoOptions(encoder), "mp4")
        check_message(*plan.notes)
        swapped(source, tmp_path / "out.mp4", VideoOptions(encoder))
        assert not probe(tmp_path / "out.mp4").field_order
    assert plan_encoder(probe(source), VideoOptions("x264"), "mp4").notes == ()


def captioned(file: Path, words: bytes, codec: str = "libx264") -> Path:
    """Write a film whose frames hold two bytes each of closed captions (ATSC A/53), in front of their slices."""
    plain = film(file.with_name("plain.mp4"), colours=DEEP, codec=codec)
    with av.open(str(plain)) as source, av.open(str(file), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            number = round((packet.pts or 0) * packet.time_base * 25)
            pair = words[2 * number : 2 * number + 2]
            data = b"\xb5\x00\x31GA94\x03\x41\xff\xfc" + pair + b"\xff"
            unit = b"\x06\x04" + bytes([len(data)]) + data + b"\x80"
            copy = av.Packet(len(unit).to_bytes(4, "big") + unit + bytes(packet))
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.is_keyframe, copy.stream = packet.is_keyframe, stream
            output.mux(copy)
    return file


def side_data(frame: Any) -> list[Any]:
    """Return the metadata of a frame, whose type PyAV states wrongly."""
    return list(frame.side_data)


def captions(file: Path) -> bytes:
    """Return the closed captions of a film."""
    with av.open(str(file)) as container:
        found = [
            bytes(data)
            for frame in container.decode(video=0)
            for data in side_data(frame)
            if data.type.name == "A53_CC"
        ]
    return b"".join(triple[1:3] for triple in found)


@pytest.mark.parametrize("encoder", CODECS)
def test_closed_captions_are_kept_or_named(tmp_path: Path, encoder: str, check_message: Callable[..., None]) -> None:
    words = bytes(value | 0x80 * (value.bit_count() % 2 == 0) for value in b"Hello Anna")  # odd parity
    source = captioned(tmp_path / "in.mp4", words)
    assert captions(source) == words
    out = swapped(source, tmp_path / "out.mp4", VideoOptions(encoder, 0))
    notes = plan_encoder(probe(source), VideoOptions(encoder), "mp4").notes
    if encoder == "svt-av1":
        check_message(*notes)
        assert captions(out) == b""
    else:
        assert (captions(out), notes) == (words, ())


@pytest.fixture(scope="module")
def converter() -> FaceSwapper:
    return FaceSwapper(FAST_MODEL, "cpu")


def test_a_swap_has_the_encoder_and_goes_on_only_with_the_same(
    converter: FaceSwapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was interrupted at one quality begins anew at another."""
    monkeypatch.setattr("fsframework.inference.video.SEGMENT", 2)
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    target = make_video(tmp_path / "in.mp4", [scene(number) for number in range(4)])
    out = tmp_path / "out.mp4"
    parts = tmp_path / ".out.mp4.parts"

    def run(options: VideoOptions) -> None:
        marking = ProvenanceOptions(provenance=False)
        run_jobs(converter, target_jobs(target, out, _of(tmp_path), SwapOptions(marking, video=options)))

    finished: list[float] = []

    def interrupted(*values: Any) -> None:
        finished[:] = [(parts / f"{number:04}.mp4").stat().st_mtime_ns for number in range(2)]
        raise KeyboardInterrupt

    monkeypatch.setattr("fsframework.inference.video.join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(VideoOptions("x265", 30))
    facts = json.loads((parts / "job.json").read_text())
    assert facts["encoder"]["encoder"] == "libx265" and facts["encoder"]["options"]["crf"] == "30"
    assert facts["video"] == {"encoder": "x265", "quality": 30}
    first = list(finished)
    for options, is_same in ((VideoOptions("x265", 30), True), (VideoOptions("x265", 20), False)):
        with pytest.raises(KeyboardInterrupt):
            run(options)
        assert (finished == first) == is_same
    monkeypatch.setattr("fsframework.inference.video.join", join)
    run(VideoOptions("x265", 20))
    assert stream_facts(out) == ("hevc", "yuv420p", "hvc1") and not parts.exists()
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    assert b"crf=20.0" in out.read_bytes()  # x265 writes its options


def test_a_swap_of_ten_bits_keeps_them_away_from_the_face(converter: FaceSwapper, tmp_path: Path) -> None:
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    large = cv2.resize(scene(0), (320, 240)).astype(np.uint16) * 257
    large += np.random.default_rng(1).integers(0, 200, large.shape, np.uint16) * (large < 65000)
    target = film(tmp_path / "in.mkv", "yuv420p10le", DEEP, "ffv1", pixels=large)
    out = tmp_path / "out.mp4"
    marking = ProvenanceOptions(provenance=False)
    options = SwapOptions(marking, video=VideoOptions("x265", 0))
    assert run_jobs(converter, target_jobs(target, out, _of(tmp_path), options)) == 0
    before, after = samples(target), samples(out)
    apart = np.abs(after - before)
    assert stream_facts(out)[1] == "yuv420p10le"
    assert apart[:, :, :40].mean() < 2 and apart[:, :, :40].max() <= 12
    assert (apart.max(axis=0) > 60).mean() > 0.005  # a face was swapped
    assert len(np.unique(after % 4)) == 4  # the two lowest bits are used
    assert Fraction(probe(out).rate) == 25
