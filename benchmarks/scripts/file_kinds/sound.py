"""Films with sound: times, trims, tracks that a container refuses or nobody decodes."""

import io
import re
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from films import RATE, copy_film, copy_with_sound_twice, make_film, streams_with_sound_twice
from PIL import Image

from file_kinds.case import Bench, Case, Maker, Outcome, said
from file_kinds.look import film, film_check, same_times, sounds
from file_kinds.people import Scene, at, scene

COUNT = 12  # frames
# name, codecs of pictures and sound, seconds by which pictures begin later, seconds added, container
OFFSETS: tuple[tuple[str, str, str, float, float, str | None], ...] = (
    ("late.mp4", "libx264", "aac", 0.3, 0.0, None),
    ("early.mp4", "libx264", "aac", -0.2, 0.2, None),
    ("shifted.mp4", "libx264", "aac", 0.0, 0.7, None),
    ("late.mov", "libx264", "pcm_s16le", 0.3, 0.0, None),
    ("late.mkv", "libx264", "aac", 0.3, 0.0, None),
    ("early.mkv", "libx264", "flac", -0.2, 0.2, None),
    ("late.ts", "libx264", "mp2", 0.3, 0.0, None),
    ("early.ts", "libx264", "mp2", -0.2, 3.0, None),
    ("late.flv", "libx264", "aac", 0.3, 0.0, None),
    ("late.mpg", "mpeg2video", "mp2", 0.3, 0.0, "mpeg"),
    ("late.webm", "libvpx", "libopus", 0.3, 0.0, None),
    ("late.webm", "libvpx-vp9", "libopus", 0.3, 0.0, None),
    ("plain.m4v", "libx264", "aac", 0.0, 0.0, "mp4"),
    ("plain.mkv", "libx265", "ac3", 0.0, 0.0, None),
    ("plain.mkv", "ffv1", "pcm_s24le", 0.0, 0.0, None),
    ("plain.mov", "prores_ks", "alac", 0.0, 0.0, None),
    ("plain.mov", "mjpeg", "pcm_s16be", 0.0, 0.0, None),
    ("old.avi", "mpeg4", "pcm_s16le", 0.0, 0.0, None),
    ("frames out of order.avi", "libx264", "libmp3lame", 0.0, 0.0, None),
    ("old.wmv", "wmv2", "wmav2", 0.0, 0.0, "asf"),
    ("without sound.mp4", "libx264", "", 0.0, 0.0, None),
)
REFUSED = (  # suffix, codecs of pictures and sound
    ("avi", "mpeg4", "pcm_u8"),
    ("avi", "mpeg4", "adpcm_ima_wav"),
    ("avi", "mpeg4", "pcm_mulaw"),
    ("wmv", "wmv2", "wmav2"),
    ("mkv", "libx264", "pcm_s24le"),
    ("flv", "flv", "libmp3lame"),
)


def walk(bench: Bench, count: int = COUNT) -> list[Scene]:
    """Return frames of a person who moves to the right."""
    return [scene([(bench.cast.people[1], at(40 + 4 * n, 16))], (320, 240)) for n in range(count)]


def made(bench: Bench, name: str, scenes: list[Scene], video: str, audio: str, **options: Any) -> Path:
    """Write a film of scenes with a tone; return its path."""
    formats = {"ffv1": "yuv420p", "prores_ks": "yuv422p10le", "mjpeg": "yuvj420p"}

    def prepare(stream: Any) -> None:
        stream.pix_fmt = formats.get(video, "yuv420p")
        if video == "libx265":
            stream.options = {"x265-params": "log-level=none"}

    bframes = 0 if video in ("wmv2", "flv", "libvpx", "libvpx-vp9", "mpeg4", "prores_ks", "mjpeg", "ffv1") else 2
    file = bench.place() / name
    frames = [each.frame for each in scenes]
    return make_film(file, frames, video, audio or None, bframes=bframes, prepare=prepare, **options)


def written_suffix(file: Path) -> str:
    """Return the suffix of a result: the target's if films are written so, else .mp4."""
    return file.suffix if file.suffix in (".mp4", ".mov", ".mkv") else ".mp4"


def sound_codec(file: Path) -> str:
    """Return the codec of the first sound track of a film."""
    with av.open(str(file)) as container:
        return container.streams.audio[0].codec_context.name


def offsets(bench: Bench) -> Iterator[Case]:
    """Yield cases: sound and pictures begin at different times, in every container."""
    scenes = walk(bench)
    for name, video, audio, late, shift, container in OFFSETS:
        target = made(bench, name, scenes, video, audio, picture_at=late, shift=shift, container=container)
        rate = RATE if name == "frames out of order.avi" else None  # FFmpeg invents other times
        check = film_check(bench.cast, scenes, lambda n: [0], target, rate=rate)
        title = f"{name}, {video}, {audio or 'no sound'}, {late:+.1f} s"
        options = ["--no-provenance"] if target.suffix == ".mkv" else []
        yield bench.swap(title, target, check, written_suffix(target), options)


def trims(bench: Bench) -> Iterator[Case]:
    """Yield cases: films that were cut without encoding them again."""
    scenes = walk(bench, 24)
    for shift in (-0.2, -0.41, -0.6):
        whole = made(bench, "whole.mp4", scenes, "libx264", "aac")
        target = copy_film(whole, whole.with_name("cut.mp4"), shift)
        kept = len(film(target).frames)
        check = film_check(bench.cast, scenes[-kept:], lambda n: [0], target)
        yield bench.swap(f"edit list hides {24 - kept} of 24 frames", target, check)
    whole = made(bench, "whole.ts", scenes, "libx264", "mp2")
    target = whole.with_name("recording.ts")
    with av.open(str(whole)) as source, av.open(str(target), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for number, packet in enumerate(source.demux()):
            if packet.size and number >= 5:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    yield bench.swap(
        "a recording begins between key frames", target, lambda outcome: same_times(target, outcome.out), ".mp4"
    )


def rates(bench: Bench) -> Iterator[Case]:
    """Yield cases: frames at uneven times, and a last frame that lasts."""
    scenes = walk(bench, 10)
    for name, times in (
        ("uneven", [0, 40, 90, 120, 200, 210, 300, 340, 500, 520]),
        ("slides", [*range(0, 20000, 2000)]),
    ):
        target = bench.place() / "film.mp4"
        with av.open(str(target), "w") as output:
            stream: Any = output.add_stream("libx264", rate=RATE, options={"crf": "12"})
            stream.height, stream.width = scenes[0].frame.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            for time, each in zip(times, scenes, strict=True):
                frame = av.VideoFrame.from_ndarray(each.frame, format="rgb24")
                frame.pts, frame.time_base = time, stream.time_base
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        yield bench.swap(f"{name} times", target, film_check(bench.cast, scenes, lambda n: [0], target))


def refused_codecs(bench: Bench) -> Iterator[Case]:
    """Yield cases: sound that MP4 cannot hold is encoded and named, alone and in a folder."""
    scenes = walk(bench, 8)
    for suffix, video, audio in REFUSED:
        container = "asf" if suffix == "wmv" else None
        target = made(bench, f"film.{suffix}", scenes, video, audio, container=container)

        def check(outcome: Outcome, target: Path = target) -> list[str]:
            found = film_check(bench.cast, scenes, lambda n: [0], target)(outcome)
            is_copied = sound_codec(outcome.out) == sound_codec(target)
            return found if is_copied else found + said(outcome, "sound track 1")

        yield bench.swap(f"{audio} in {suffix} to mp4", target, check, ".mp4")
        folder = bench.place() / "films"
        folder.mkdir()
        target.rename(folder / f"a.{suffix}")
        Image.fromarray(scenes[0].frame).save(folder / "z.png")
        out = folder.with_name("out")

        def both(outcome: Outcome, suffix: str = suffix) -> list[str]:
            names = {file.name for file in outcome.out.iterdir() if not file.name.startswith(".")}
            expected = {f"a.{suffix}.mp4", "z.png"}
            return [] if names == expected else [f"the folder of results holds {sorted(names)}"]

        yield Case(f"{audio} in a folder", ["swap", bench.cast.source_file, folder, out], both, out)


def unknown_tracks(bench: Bench) -> Iterator[Case]:
    """Yield cases: a second sound track without a decoder, as phones write; also broken, empty and several tracks."""
    scenes = walk(bench, 8)
    one = made(bench, "one.mp4", scenes, "libx264", "aac")
    doubled = one.with_name("two.mov")
    with av.open(str(one)) as source, av.open(str(doubled), "w") as output:
        copy_with_sound_twice(source, output, streams_with_sound_twice(source, output))
    data = bytearray(doubled.read_bytes())
    last = data.rfind(b"stsd")
    for place in [match.start() for match in re.finditer(b"mp4a", data) if match.start() > last]:
        data[place : place + 4] = b"apac"
    place = data.rfind(b"esds")
    data[place : place + 4] = b"xsds"
    for suffix in (".mov", ".mp4", ".mkv"):
        target = bench.place() / "apac.mov"
        target.write_bytes(data)

        def check(outcome: Outcome, target: Path = target) -> list[str]:
            return film_check(bench.cast, scenes, lambda n: [0], target)(outcome) + said(outcome, "sound track 2")

        options = ["--no-provenance"] if suffix == ".mkv" else []
        yield bench.swap(f"track without decoder to {suffix[1:]}", target, check, suffix, options)
    target = bench.place() / "twice.mov"
    target.write_bytes(doubled.read_bytes())
    yield bench.swap("two sound tracks", target, film_check(bench.cast, scenes, lambda n: [0], target), ".mp4")
    broken = bytearray(one.read_bytes())
    with av.open(str(one)) as container:
        starts = [packet.pos or 0 for packet in container.demux(audio=0) if packet.size]
    for start in starts[6:8]:
        broken[start : start + 40] = bytes(40)
    target = bench.place() / "damaged sound.mp4"
    target.write_bytes(broken)
    yield bench.swap("two packets of sound damaged", target, _same_packets(target))
    target = bench.place() / "short sound.mp4"
    with av.open(str(one)) as source, av.open(str(target), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and (packet.stream.type == "video" or (packet.pts or 0) < 6000):
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    yield bench.swap("sound ends early", target, film_check(bench.cast, scenes, lambda n: [0], target))
    subtitled = _with_subtitles(bench, one)
    yield bench.swap("subtitles in mkv", subtitled, _has_subtitles(subtitled), options=["--no-provenance"])
    yield bench.swap("subtitles in mkv to mp4", subtitled, _has_subtitles(subtitled), ".mp4")


def _same_packets(target: Path) -> Any:
    """Return a check that the bytes of sound are the same."""

    def packets(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    def check(outcome: Outcome) -> list[str]:
        same = packets(target) == packets(outcome.out)
        return [] if same else ["the packets of sound differ"]

    return check


def _with_subtitles(bench: Bench, plain: Path) -> Path:
    """Return a copy of a film in Matroska with subtitles in German."""
    text = "1\n00:00:00,000 --> 00:00:00,200\nGuten Tag\n\n2\n00:00:00,200 --> 00:00:00,300\nAuf Wiedersehen\n\n"
    target = bench.place() / "subtitled.mkv"
    with (
        av.open(str(plain)) as source,
        av.open(io.BytesIO(text.encode()), "r", format="srt") as lines,
        av.open(str(target), "w") as output,
    ):
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        subtitle = output.add_stream_from_template(lines.streams.subtitles[0])
        subtitle.metadata["language"] = "deu"
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
        for packet in lines.demux():
            if packet.size:
                packet.stream = subtitle
                output.mux(packet)
    return target


def _has_subtitles(target: Path) -> Any:
    """Return a check that subtitles and their language are kept, or their loss is said."""

    def check(outcome: Outcome) -> list[str]:
        with av.open(str(outcome.out)) as container:
            tracks = container.streams.subtitles
            languages = [stream.language for stream in tracks]
            texts = sum(packet.size > 2 for packet in container.demux(*tracks)) if tracks else 0
        found = same_times(target, outcome.out)
        if not languages:
            return found + said(outcome, "subtitle")
        return found if languages == ["deu"] and texts == 2 else [*found, f"subtitles: {languages}, {texts} texts"]

    return check


def own_sound(bench: Bench) -> Iterator[Case]:
    """Yield cases: sound of several rates and numbers of channels."""
    scenes = walk(bench, 8)
    plain = made(bench, "plain.mp4", scenes, "libx264", "")
    for rate, channels in ((8000, 1), (22050, 2), (44100, 6), (96000, 2)):
        memory = io.BytesIO()
        with wave.open(memory, "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(2)
            file.setframerate(rate)
            tone = 9000 * np.sin(2 * np.pi * 440 * np.arange(round(rate * len(scenes) / RATE)) / rate)
            file.writeframes(np.repeat(tone.astype("<i2")[:, None], channels, axis=1).tobytes())
        memory.seek(0)
        target = bench.place() / "film.mkv"
        with av.open(str(plain)) as source, av.open(memory, "r") as sound, av.open(str(target), "w") as output:
            streams = [output.add_stream_from_template(part.streams[0]) for part in (source, sound)]
            for part, stream in zip((source, sound), streams, strict=True):
                for packet in part.demux():
                    if packet.size:
                        packet.stream = stream
                        output.mux(packet)

        def check(outcome: Outcome, target: Path = target) -> list[str]:
            found = film_check(bench.cast, scenes, lambda n: [0], target)(outcome)
            return found if len(sounds(outcome.out)) == 1 else [*found, "the sound is missing"]

        yield bench.swap(f"{rate} Hz, {channels} channels, PCM to mp4", target, check, ".mp4")


KINDS: dict[str, list[Maker]] = {
    "sound and pictures begin apart, containers": [offsets],
    "trimmed films, uneven times": [trims, rates],
    "sound that a container refuses": [refused_codecs, own_sound],
    "unknown, damaged and further tracks": [unknown_tracks],
}
