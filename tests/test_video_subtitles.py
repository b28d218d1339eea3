"""Subtitles of films are copied, converted where they are text, or left out and named."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from films import make_film, pictures, seen

from fsframework.media.video_io import probe, read, write
from fsframework.media.video_join import join
from fsframework.media.video_subtitles import SubtitleTrack, plan_subtitles

TEXTS = [(0.1, 0.3, "Hello"), (0.48, 0.2, "Bye, <i>you</i>")]  # begin and duration in seconds
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,Arial,16,&Hffffff

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def subtitled(
    folder: Path, codec: str, suffix: str, shift: float = 0.0, shown: Sequence[tuple[float, float, str]] = TEXTS
) -> Path:
    """Write a film with German subtitles; `shift` seconds are added to all times."""
    bare = make_film(folder / "plain.mp4", pictures())
    file = folder / f"film{suffix}"
    with av.open(str(bare)) as source, av.open(str(file), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        text: Any = output.add_stream("srt" if codec == "srt" else codec)
        text.codec_context.subtitle_header = ASS_HEADER
        text.time_base = text.codec_context.time_base = Fraction(1, 1000)
        text.metadata.update(language="deu", title="Untertitel")
        if suffix == ".mkv" and codec == "ass":
            output.add_attachment("a.ttf", "application/x-truetype-font", b"a font")
        packets = []
        for packet in source.demux():
            if packet.size:
                moved = round(shift / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + moved, (packet.dts or 0) + moved
                packet.stream = streams[packet.stream.index]
                packets.append(packet)
        for at, length, words in shown:
            words = words if codec == "srt" else plain(words)
            content = words.encode() if codec != "ass" else f"0,0,Default,,0,0,0,,{words}".encode()
            if codec == "mov_text":
                content = len(content).to_bytes(2, "big") + content
            packet = av.Packet(content)
            packet.pts = packet.dts = round(1000 * (at + shift))
            packet.duration, packet.time_base, packet.stream = round(1000 * length), Fraction(1, 1000), text
            packets.append(packet)
        text.codec_context.open(strict=False)
        for packet in sorted(packets, key=lambda each: (each.dts or 0) * each.time_base):
            output.mux(packet)
    return file


def plain(words: str) -> str:
    """Return words without italics."""
    return words.replace("<i>", "").replace("</i>", "")


def copied(source: Path, out: Path) -> list[tuple[float, float, str]]:
    """Write a film again, as a swap does; return beginning, duration and words of its subtitles.

    The first picture is at 0.
    """
    video = probe(source)
    segment = out.with_name("segment.mp4")
    write(segment, video, read(video))
    join([segment], video, out)
    return texts(out)


def texts(file: Path) -> list[tuple[float, float, str]]:
    found = []
    first = seen(file)[0]
    with av.open(str(file)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            if not packet.size:
                continue
            subtitles: Any = stream.codec_context.decode2(packet)
            for rectangle in subtitles or []:
                words = rectangle.ass.decode().split(",", 8)[8].replace("{\\i1}", "<i>").replace("{\\i0}", "</i>")
                unit = packet.time_base
                found.append((float((packet.pts or 0) * unit) - first, float((packet.duration or 0) * unit), words))
    return found


@pytest.mark.parametrize(
    ("codec", "suffix", "out", "action"),
    [
        ("mov_text", ".mp4", ".mp4", "copy"),
        ("mov_text", ".mp4", ".mov", "copy"),
        ("mov_text", ".mp4", ".mkv", "encode"),
        ("srt", ".mkv", ".mkv", "copy"),
        ("srt", ".mkv", ".mp4", "encode"),
        ("srt", ".mkv", ".mov", "encode"),
        ("ass", ".mkv", ".mkv", "copy"),
        ("ass", ".mkv", ".mp4", "encode"),
    ],
)
def test_text_is_kept_with_its_times_and_language(
    tmp_path: Path, codec: str, suffix: str, out: str, action: str, check_message: Callable[..., None]
) -> None:
    source = subtitled(tmp_path, codec, suffix, shift=0.2)
    (track,) = plan_subtitles(probe(source), out)
    assert track.action == action
    check_message(str(track.note(out)))
    found = copied(source, tmp_path / f"out{out}")
    assert len(found) == 2
    for (begin, length, words), (at, duration, expected) in zip(found, TEXTS, strict=True):
        assert begin == pytest.approx(at, abs=0.002) and length == pytest.approx(duration, abs=0.002)
        assert plain(words) == plain(expected)
        assert ("<i>" in words) == ("<i>" in expected and codec == "srt")
    with av.open(str(tmp_path / f"out{out}")) as container:
        (stream,) = container.streams.subtitles
        assert stream.language == ("ger" if out == ".mov" else "deu")
        fonts = [(each.name, each.data) for each in container.streams.attachments]
        assert fonts == ([("a.ttf", b"a font")] if codec == "ass" and out == ".mkv" else [])
        assert sum(1 for _ in container.decode(video=0)) == 20


@pytest.mark.parametrize("out", [".mp4", ".mkv"])
def test_text_before_the_film_is_cut(tmp_path: Path, out: str) -> None:
    """Players begin with text that comes up to a second before the pictures, and skip earlier text."""
    shown = [(-1.3, 0.2, "Gone"), (-1.1, 1.3, "Cut"), (0.4, 0.2, "Whole")]
    found = copied(subtitled(tmp_path, "srt", ".mkv", 2.0, shown), tmp_path / f"out{out}")
    assert [words for _, _, words in found] == ["Cut", "Whole"]
    assert found[0][0] + found[0][1] == pytest.approx(0.2, abs=0.002) and -0.03 < found[0][0] < 0.002
    assert found[1][0] == pytest.approx(0.4, abs=0.002)
    assert len(list(read(probe(tmp_path / f"out{out}")))) == 20


def test_pictures_of_text_are_left_out_and_named(tmp_path: Path, check_message: Callable[..., None]) -> None:
    bare = make_film(tmp_path / "plain.mp4", pictures())
    source = tmp_path / "film.mkv"
    with av.open(str(bare)) as film, av.open(str(source), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in film.streams}
        text: Any = output.add_mux_stream("hdmv_pgs_subtitle")
        text.time_base = Fraction(1, 1000)
        for packet in film.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
        packet = av.Packet(bytes.fromhex("800000"))  # an end of a display set
        packet.pts = packet.dts = 100
        packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), text
        output.mux(packet)
    video = probe(source)
    (track,) = plan_subtitles(video, ".mp4")
    assert track.action == "omit" and track.holder == ".mkv"
    check_message(str(track.note(".mp4")))
    copied_to = tmp_path / "out.mp4"
    write(tmp_path / "segment.mp4", video, read(video))
    join([tmp_path / "segment.mp4"], video, copied_to)
    with av.open(str(copied_to)) as container:
        assert len(container.streams.subtitles) == 0
    (kept,) = plan_subtitles(video, ".mkv")
    assert (kept.action, kept.note(".mkv")) == ("copy", None)
    assert SubtitleTrack(3, 2, "srt", "copy").note(".mkv") is None
