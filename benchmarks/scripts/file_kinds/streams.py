"""Cases of what films say of themselves: colours, aspect ratio, mirroring, languages, dates, chapters; encoders."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from films import copy_with_sound_twice, make_film, streams_with_sound_twice
from PIL import Image

from file_kinds.case import Bench, Case, Check, Maker, Outcome
from file_kinds.heads import tagged
from file_kinds.look import film, film_check, first_video, picture, picture_check
from file_kinds.people import Scene, portrait_of
from file_kinds.sound import walk

TAGS = ("aspect ratio of pixels", "range", "matrix", "primaries", "transfer")
PLAIN = ("--no-provenance",)
DEFAULT = av.stream.Disposition.default
# name, FFmpeg's numbers of range, matrix, primaries and transfer
COLOURS = (
    ("BT.709", (1, 1, 1, 1)),
    ("BT.709, full range", (2, 1, 1, 1)),
    ("BT.601, 525 lines", (1, 6, 6, 6)),
    ("BT.601, 625 lines", (1, 5, 5, 1)),
    ("BT.2020", (1, 9, 9, 14)),
    ("Display P3", (1, 1, 12, 13)),
    ("full range, BT.601", (2, 6, 1, 13)),
)
# codec of pictures, their format, suffix
FORMATS = (
    ("libx264", "yuv422p", ".mp4"),
    ("libx264", "yuv444p", ".mp4"),
    ("libx264", "yuvj420p", ".mp4"),
    ("libx264", "nv12", ".mkv"),
    ("libx264", "gray", ".mp4"),
    ("libx264rgb", "rgb24", ".mkv"),
    ("png", "rgb24", ".mov"),
    ("qtrle", "rgb24", ".mov"),
    ("ffv1", "bgr0", ".mkv"),
    ("rawvideo", "yuv420p", ".avi"),
    ("huffyuv", "yuv422p", ".avi"),
    ("mjpeg", "yuvj422p", ".mov"),
)
DEEP = (
    ("libx264", "yuv420p10le"),
    ("libx265", "yuv420p10le"),
    ("libx265", "yuv422p10le"),
    ("prores_ks", "yuv422p10le"),
)


def coloured(bench: Bench, scenes: Sequence[Scene], codec: str, pixel_format: str, suffix: str, **tags: Any) -> Path:
    """Write a film with a pixel format and tags of its stream; return its path."""

    def prepare(stream: Any) -> None:
        stream.pix_fmt = pixel_format
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none:crf=12"}
        for key, value in tags.items():
            setattr(stream.codec_context, key, value)

    bframes = 2 if codec in ("libx264", "libx265") else 0
    target = bench.place() / f"film{suffix}"
    return make_film(target, [each.frame for each in scenes], codec, None, bframes=bframes, prepare=prepare)


def kept(bench: Bench, scenes: Sequence[Scene], target: Path, tags: Sequence[str] = TAGS) -> Check:
    """Return a check of a film's faces, its pixels' mean and what the stream says."""
    look = film_check(bench.cast, scenes, lambda n: [0], target, exact=True)

    def check(outcome: Outcome) -> list[str]:
        before, after = first_video(target), first_video(outcome.out)
        for facts in (before, after):
            facts["range"] = facts["range"] or 1  # H.264 and H.265 infer the limited range where none is stated
        lost = [f"{tag}: {after[tag]} instead of {before[tag]}" for tag in tags if before[tag] != after[tag]]
        return look(outcome) + lost

    return check


def colours(bench: Bench) -> Iterator[Case]:
    """Yield cases: colour tags of films, aspect ratios of pixels, a mirroring matrix, interlacing."""
    scenes = walk(bench, 6)
    for name, (extent, matrix, primaries, transfer) in COLOURS:
        tags = {"color_range": extent, "colorspace": matrix, "color_primaries": primaries, "color_trc": transfer}
        target = coloured(bench, scenes, "libx264", "yuv420p", ".mp4", **tags)
        yield bench.swap(name, target, kept(bench, scenes, target), options=PLAIN)
    for ratio, suffix in ((Fraction(4, 3), ".mp4"), (Fraction(16, 11), ".mov"), (Fraction(1, 2), ".mkv")):
        target = coloured(bench, scenes, "libx264", "yuv420p", suffix, sample_aspect_ratio=ratio)
        yield bench.swap(f"pixels {ratio}, {suffix}", target, kept(bench, scenes, target), options=PLAIN)
    whole = portrait_of(bench.cast.people[2], 28)
    stored = np.ascontiguousarray(whole.frame[:, ::-1])
    target = tagged(make_film(bench.place() / "plain.mp4", [stored] * 6, audio=None), 0, mirrored=True)

    def mirrored(outcome: Outcome) -> list[str]:
        after = film(outcome.out).frames[3]
        with av.open(str(outcome.out)) as container:
            frame: Any = next(container.decode(video=0))
            has_matrix = any(data.type.name == "DISPLAYMATRIX" for data in frame.side_data)
        shown = after[:, ::-1] if has_matrix else after
        return bench.cast.problems(whole.frame, np.ascontiguousarray(shown), whole.faces)

    yield bench.swap("mirroring matrix", target, mirrored)
    target = bench.place() / "interlaced.mp4"

    def interlaced(stream: Any) -> None:
        stream.options = {"crf": "12", "x264-params": "tff=1"}

    make_film(target, [each.frame for each in scenes], audio=None, prepare=interlaced)
    yield bench.swap("interlaced", target, _fields(target), expected="either")


def _fields(target: Path) -> Check:
    """Return a check that frames of two fields are kept as such."""

    def of(file: Path) -> list[bool]:
        with av.open(str(file)) as container:
            return [bool(frame.interlaced_frame) for frame in container.decode(video=0)]

    def check(outcome: Outcome) -> list[str]:
        before, after = of(target), of(outcome.out)
        return [] if before == after else ["frames of two fields became whole ones, silently"]

    return check


def pixel_formats(bench: Bench) -> Iterator[Case]:
    """Yield cases: every pixel format: away from the face the colours stay, after three passes, too."""
    scenes = walk(bench, 6)
    grey = [
        Scene(np.repeat(each.frame.mean(axis=2, keepdims=True), 3, 2).astype(np.uint8), each.faces) for each in scenes
    ]
    for codec, pixel_format, suffix in FORMATS:
        shown = grey if pixel_format == "gray" else scenes
        target = coloured(bench, shown, codec, pixel_format, suffix)
        out = suffix if suffix in (".mp4", ".mov", ".mkv") else ".mp4"
        tags = TAGS[:1] if "rgb" in pixel_format or "bgr" in pixel_format else TAGS
        check = kept(bench, shown, target, tags)
        yield bench.swap(f"{codec}, {pixel_format}, {suffix}", target, check, out, PLAIN)
    target = coloured(bench, scenes, "libx264", "yuv420p", ".mp4")
    first, second = target.with_name("pass1.mp4"), target.with_name("pass2.mp4")
    passed = _quietly(bench, target, first) and _quietly(bench, first, second)
    if passed:
        third = target.with_name("pass3.mp4")
        look = film_check(bench.cast, scenes, lambda n: [], target, looked=(), exact=True)

        def check_passes(outcome: Outcome) -> list[str]:
            before, after = film(target).frames[2], film(outcome.out).frames[2]
            top = before[:12].astype(float) - after[:12]
            bias = np.abs(top.mean(axis=(0, 1))).max()
            return look(outcome) + ([] if bias <= 0.5 else [f"after three passes colours are {bias:.1f} levels off"])

        arguments: list[str | Path] = ["swap", *PLAIN, bench.cast.source_file, second, third]
        yield Case("three passes", arguments, check_passes, third)


def _quietly(bench: Bench, target: Path, out: Path) -> bool:
    """Swap a film in this process; return whether there is a result."""
    from file_kinds.interfaces import MODEL, run_command

    status, _ = run_command(["swap", *MODEL, *PLAIN, *map(str, (bench.cast.source_file, target, out))])
    return status == 0


def deep(bench: Bench) -> Iterator[Case]:
    """Yield cases: ten bits and high dynamic range are kept, or refused with words."""
    scenes = walk(bench, 6)
    for codec, pixel_format in DEEP:
        suffix = ".mov" if codec == "prores_ks" else ".mp4"
        target = coloured(bench, scenes, codec, pixel_format, suffix)
        yield bench.swap(f"{codec}, {pixel_format}", target, _depth(kept(bench, scenes, target)), options=PLAIN)
    for name, transfer in (("PQ", 16), ("HLG", 18)):
        tags = {"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": transfer}
        target = coloured(bench, scenes, "libx265", "yuv420p10le", ".mp4", **tags)
        check = _depth(kept(bench, scenes, target))
        yield bench.swap(f"high dynamic range, {name}", target, check, options=PLAIN, expected="either")


def _depth(look: Check) -> Check:
    """Return a check that also needs ten bits."""

    def check(outcome: Outcome) -> list[str]:
        pixel_format = first_video(outcome.out)["pixel format"]
        return look(outcome) + ([] if "10" in pixel_format else [f"10 bit became {pixel_format}"])

    return check


def encoders(bench: Bench) -> Iterator[Case]:
    """Yield cases: the quality and the encoder are the user's."""
    scenes = walk(bench, 8)
    for encoder, codec in (("x264", "h264"), ("x265", "hevc"), ("svt-av1", "av1")):
        target = coloured(bench, scenes, "libx264", "yuv420p", ".mp4")

        def check(outcome: Outcome, target: Path = target, codec: str = codec) -> list[str]:
            found = first_video(outcome.out)["codec"]
            names = {"av1": ("av1", "libdav1d")}.get(codec, (codec,))
            look = film_check(bench.cast, scenes, lambda n: [0], target)
            return look(outcome) + ([] if found in names else [f"the codec is {found}"])

        yield bench.swap(f"--encoder {encoder}", target, check, options=["--encoder", encoder])
    target = coloured(bench, scenes, "libx264", "yuv420p", ".mp4")
    for quality, low, high in (("8", 30_000, 10**9), ("40", 0, 30_000)):
        copy = bench.place() / "film.mp4"
        copy.write_bytes(target.read_bytes())

        def sized(outcome: Outcome, low: int = low, high: int = high) -> list[str]:
            with av.open(str(outcome.out)) as container:
                size = sum(packet.size for packet in container.demux(video=0))
            return [] if low <= size < high else [f"{size} bytes of pictures"]

        yield bench.swap(f"--quality {quality}", copy, sized, options=["--quality", quality])


def languages(bench: Bench) -> Iterator[Case]:
    """Yield cases: languages, the default track, titles, dates and chapters; the place is left out."""
    scenes = walk(bench, 8)
    plain = make_film(bench.place() / "plain.mp4", [each.frame for each in scenes])
    for suffix in (".mp4", ".mov", ".mkv"):
        target = bench.place() / f"film{suffix}"
        with av.open(str(plain)) as source, av.open(str(target), "w") as output:
            streams = streams_with_sound_twice(source, output)
            streams[1].metadata["language"], streams[2].metadata["language"] = "eng", "fra"
            streams[1].disposition, streams[2].disposition = 0, DEFAULT
            output.metadata.update(title="Holiday", creation_time="2023-05-06T07:08:09.000000Z")
            output.metadata["location"] = "+48.1375+011.5755/"
            times = [(0, 100, "Start"), (100, 320, "End")]
            output.set_chapters(
                [
                    {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for n, (a, b, title) in enumerate(times)
                ]
            )
            copy_with_sound_twice(source, output, streams)
        for into in (suffix, ".mov" if suffix == ".mp4" else ".mp4"):
            options = PLAIN if into == ".mkv" else ()
            yield bench.swap(f"{suffix} to {into}", target, _tracks_kept, into, options)


def _tracks_kept(outcome: Outcome) -> list[str]:
    """Return what a result lost of languages, flags, titles, dates and chapters."""
    found = []
    with av.open(str(outcome.out)) as container:
        tracks = container.streams.audio
        named = [str(stream.language) for stream in tracks]
        if [name[:2] for name in named] != ["en", "fr"]:
            found.append(f"languages are {named}")
        if [bool(stream.disposition & DEFAULT) for stream in tracks] != [False, True]:
            found.append("the default track is another one")
        tags = {key.lower(): value for key, value in container.metadata.items()}
        if tags.get("title") != "Holiday":
            found.append(f"the title is {tags.get('title')}")
        if not tags.get("creation_time", tags.get("date", "")).startswith("2023-05-06"):
            found.append("the date is lost")
        if any("location" in key or "48.13" in value for key, value in tags.items()):
            found.append("the place is kept")
        titles = [chapter["metadata"].get("title") for chapter in container.chapters()]
        if titles != ["Start", "End"]:
            found.append(f"chapters are {titles}")
    return found


def photograph_tags(bench: Bench) -> Iterator[Case]:
    """Yield cases: EXIF and resolution of pictures are kept, their place and serial numbers are not."""
    whole = portrait_of(bench.cast.people[2])
    for suffix, out in ((".jpg", ".jpg"), (".png", ".png"), (".webp", ".webp"), (".jpg", ".png"), (".png", ".jpg")):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110], exif[0x0132] = "Maker", "Model 1", "2024:01:02 03:04:05"
        exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
        exif.get_ifd(0x8769)[0xA431] = "SERIAL1234"
        exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (48.0, 8.0, 15.0)
        target = bench.place() / f"photo{suffix}"
        resolution: dict[str, Any] = {} if suffix == ".webp" else {"dpi": (300, 300)}
        Image.fromarray(whole.frame).save(target, exif=exif, quality=95, **resolution)

        def check(outcome: Outcome, target: Path = target, has_dpi: bool = bool(resolution)) -> list[str]:
            shown = Scene(picture(target), whole.faces)
            found = picture_check(bench.cast, shown, [0])(outcome)
            with Image.open(outcome.out) as image:
                tags, dpi = image.getexif(), image.info.get("dpi", (0, 0))
                details = tags.get_ifd(0x8769)
                if tags.get(0x010F) != "Maker" or details.get(0x9003) != "2024:01:02 03:04:05":
                    found.append("EXIF is lost")
                if tags.get_ifd(0x8825) or details.get(0xA431):
                    found.append("the place or the serial number is kept")
                if has_dpi and abs(float(dpi[0]) - 300) > 1:
                    found.append(f"the resolution is {dpi}")
            return found

        yield bench.swap(f"EXIF and dpi, {suffix} to {out}", target, check, out, portable=True)
    whole = portrait_of(bench.cast.people[3])
    for suffix in (".tif", ".png"):
        target = bench.place() / "photo.jpg"
        exif = Image.Exif()
        exif[0x0112], exif[0x0110] = 1, "Model 1"
        exif.get_ifd(0x8769)[0xA431] = "SERIAL1234"
        exif.get_ifd(0x8825)[1] = "N"
        Image.fromarray(whole.frame).save(target, exif=exif, quality=95)

        def with_place(outcome: Outcome) -> list[str]:
            with Image.open(outcome.out) as image:
                tags = image.getexif()
                kept = tags.get(0x0110), tags.get_ifd(0x8769).get(0xA431), tags.get_ifd(0x8825).get(1)
            return [] if kept == ("Model 1", "SERIAL1234", "N") else [f"model, serial number and place are {kept}"]

        yield bench.swap(f"--private-metadata, .jpg to {suffix}", target, with_place, suffix, ["--private-metadata"])


KINDS: dict[str, list[Maker]] = {
    "colour tags, aspect ratio, mirroring, fields": [colours],
    "pixel formats of films, three passes": [pixel_formats],
    "ten bits and high dynamic range": [deep],
    "quality and encoder": [encoders],
    "languages, flags, dates and chapters": [languages],
    "EXIF and resolution of pictures": [photograph_tags],
}
