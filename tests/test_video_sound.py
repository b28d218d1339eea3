"""Times and sound of films: everything counts from the container's start; tracks that no container or decoder takes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import (
    RATE,
    copy_film,
    copy_with_sound_twice,
    heard,
    make_film,
    pictures,
    seconds,
    seen,
    streams_with_sound_twice,
)

from fsframework.core.errors import UserError
from fsframework.media.video_io import Video, probe, read, write
from fsframework.media.video_join import join
from fsframework.media.video_sound import plan_sound

FRAMES = pictures()


def copied(source: Path, suffix: str = ".mp4") -> tuple[Video, Path]:
    """Decode a film and write it again in two segments, as a swap does; return the film and the result."""
    video = probe(source)
    frames = list(read(video))
    cut = len(frames) // 3
    segments = [source.with_name(f"{number}.mp4") for number in range(2)]
    write(segments[0], video, frames[:cut])
    write(segments[1], video, frames[cut:], cut)
    out = source.with_name(f"out{suffix}")
    join(segments, video, out)
    return video, out


# name, video and audio codec, when the picture begins after the sound, seconds added to all times, container
FILMS = [
    ("plain.mp4", "libx264", "aac", 0.0, 0.0, None),
    ("late.mp4", "libx264", "aac", 0.2, 0.0, None),
    ("early.mp4", "libx264", "aac", -0.2, 0.2, None),
    ("shifted.mp4", "libx264", "aac", 0.0, 0.5, None),
    ("late.mov", "libx264", "pcm_s16le", 0.2, 0.0, None),
    ("late.mkv", "libx264", "aac", 0.2, 0.0, None),
    ("flac.mkv", "libx264", "flac", -0.2, 0.2, None),
    ("late.ts", "libx264", "mp2", 0.2, 0.0, None),
    ("early.ts", "libx264", "mp2", -0.2, 3.0, None),
    ("late.flv", "libx264", "aac", 0.2, 0.0, None),
    ("late.mpg", "mpeg2video", "mp2", 0.2, 0.0, "mpeg"),
    ("late.webm", "libvpx", "libopus", 0.2, 0.0, None),
    ("old.avi", "mpeg4", "pcm_s16le", 0.0, 0.0, None),
    ("ordered.avi", "libx264", "mp3", 0.0, 0.0, None),
    ("old.wmv", "wmv2", "wmav2", 0.0, 0.0, "asf"),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("film", FILMS, ids=[film[0] for film in FILMS])
def test_frames_and_sound_keep_their_times(tmp_path: Path, film: tuple[Any, ...], suffix: str) -> None:
    name, codec, audio, picture_at, shift, container = film
    bframes = 0 if codec in ("wmv2", "libvpx") or name == "old.avi" else 2
    source = make_film(tmp_path / name, FRAMES, codec, audio, picture_at, shift, container, bframes=bframes)
    video, out = copied(source, suffix)
    assert len(video.times) == len(FRAMES)
    shown = list(read(probe(out)))
    assert len(shown) == len(FRAMES)
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(shown, FRAMES, strict=True)) < 4
    times, before = seen(out), [float(time * video.base - video.start) for time in video.times]
    (sound_at, samples), (sound_before, samples_before) = heard(out), heard(source)
    sound_before -= float(video.start)
    tick = 0.0011 if suffix == ".mkv" or name.endswith((".mkv", ".flv", ".webm", ".wmv")) else 0.0002
    assert np.allclose(np.diff(times), np.diff(before), atol=tick)
    # Matroska and Opus hold one packet before the beginning of the sound, which other containers hide.
    priming = 0.0225 if suffix == ".mkv" or name.endswith((".mkv", ".webm")) else 0.0
    assert abs(times[0] - before[0]) <= priming + tick
    if audio == "wmav2":  # encoded as AAC, which begins with 1024 samples of silence
        priming += 0.0214
    assert abs((times[0] - sound_at) - (before[0] - sound_before)) <= priming + tick
    assert -0.002 < (len(samples) - len(samples_before)) / 48000 < priming + 0.022
    end = max(times[-1] + 1 / RATE, sound_at + len(samples) / 48000)
    begin = max(0.0, min(times[0], sound_at))  # which FFmpeg does not count in MP4
    assert end - begin - 0.025 < seconds(out) < end + 0.025


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_that_an_edit_list_hides_are_no_frames(tmp_path: Path, suffix: str) -> None:
    whole = make_film(tmp_path / "whole.mp4", FRAMES)
    source = copy_film(whole, tmp_path / "cut.mp4", -0.41)
    expected = seen(source)
    assert len(expected) == 9  # 0.44 s of 0.8 s and later
    video, out = copied(source, suffix)
    assert len(video.times) == len(expected)
    for shown, frame in zip(read(probe(out)), FRAMES[-9:], strict=True):
        assert np.abs(shown.astype(int) - frame).mean() < 4
    priming = 0.0225 if suffix == ".mkv" else 0.0
    assert np.allclose(seen(out), expected, atol=priming + 0.0002)
    at, samples = heard(out)
    assert at == 0 and 0 <= len(samples) - len(heard(source)[1]) <= 48000 * priming
    assert seconds(out) - seconds(source) <= priming


def test_sound_packets_are_the_same_bytes(tmp_path: Path) -> None:
    source = make_film(tmp_path / "late.mp4", FRAMES, picture_at=0.5)
    _, out = copied(source)
    packets = []
    for file in (source, out):
        with av.open(str(file)) as container:
            packets.append([(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size])
    assert packets[0] == packets[1] and packets[0][0][0] == -1024


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.flv", "b.avi", "a.mkv"])
def test_any_frame_is_found_by_its_index(tmp_path: Path, name: str) -> None:
    frames = pictures(150)
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    source = make_film(tmp_path / name, frames, codec, None, container="mpeg" if name == "a.mpg" else None, group=12)
    video = probe(source)
    whole = list(read(video))
    for index in (0, 1, 5, 60, 75, 140, 149):
        (frame,) = read(video, index, index + 1)
        assert np.array_equal(frame, whole[index])


def test_a_recording_that_begins_between_key_frames(tmp_path: Path) -> None:
    whole = make_film(tmp_path / "whole.ts", FRAMES, audio=None, bframes=0)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "later.ts"), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number >= 3:  # the first key frame that is left is number 8
                packet.stream = stream
                output.mux(packet)
    video, out = copied(tmp_path / "later.ts")
    assert len(video.times) == len(seen(out)) == len(seen(tmp_path / "later.ts"))
    assert np.abs(list(read(video))[-1].astype(int) - FRAMES[-1]).mean() < 4


def test_the_last_frame_lasts(tmp_path: Path) -> None:
    source = tmp_path / "slides.mp4"
    with av.open(str(source), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = [packet for pixels in FRAMES[:3] for packet in stream.encode(av.VideoFrame.from_ndarray(pixels))]
        packets += stream.encode()
        for packet in packets:
            packet.duration = (
                40 * packet.duration if packet.pts == max(each.pts for each in packets) else packet.duration
            )
            output.mux(packet)
    video, out = copied(source)
    assert video.seconds == pytest.approx(seconds(source)) and seconds(out) == pytest.approx(seconds(source))


def unknown_track(tmp_path: Path) -> Path:
    """A film of a phone: its second sound track has a codec that FFmpeg cannot decode."""
    one = make_film(tmp_path / "one.mp4", FRAMES)
    with av.open(str(one)) as source, av.open(str(tmp_path / "two.mov"), "w") as output:
        copy_with_sound_twice(source, output, streams_with_sound_twice(source, output))
    data = bytearray((tmp_path / "two.mov").read_bytes())
    last = data.rfind(b"stsd")
    for place in [match.start() for match in re.finditer(b"mp4a", data) if match.start() > last]:
        data[place : place + 4] = b"apac"
    esds = data.rfind(b"esds")
    data[esds : esds + 4] = b"xsds"
    (tmp_path / "apac.mov").write_bytes(data)
    return tmp_path / "apac.mov"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_track_without_decoder_is_left_out_and_named(
    tmp_path: Path, suffix: str, check_message: Callable[..., None]
) -> None:
    source = unknown_track(tmp_path)
    video, out = copied(source, suffix)
    first, second = plan_sound(video, suffix)
    assert (first.action, second.action) == ("copy", "omit") and first.note(suffix) is None
    check_message(str(second.note(suffix)))
    with av.open(str(out)) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["aac"]


@pytest.mark.parametrize(
    ("name", "codec", "suffix", "action"),
    [
        ("a.avi", "pcm_u8", ".mp4", "encode"),
        ("a.avi", "pcm_u8", ".mov", "copy"),
        ("a.avi", "pcm_u8", ".mkv", "copy"),
        ("a.avi", "adpcm_ima_wav", ".mp4", "encode"),
        ("a.avi", "pcm_mulaw", ".mp4", "encode"),
        ("a.avi", "pcm_mulaw", ".mov", "copy"),
        ("a.wmv", "wmav2", ".mp4", "encode"),
        ("a.mkv", "flac", ".mov", "encode"),
        ("a.webm", "libopus", ".mov", "encode"),
        ("a.webm", "libopus", ".mp4", "copy"),
        ("a.mkv", "ac3", ".mp4", "copy"),
    ],
)
def test_sound_that_a_container_refuses_is_encoded(
    tmp_path: Path, name: str, codec: str, suffix: str, action: str, check_message: Callable[..., None]
) -> None:
    picture = {".avi": "mpeg4", ".wmv": "wmv2", ".webm": "libvpx"}.get(Path(name).suffix, "libx264")
    container = "asf" if name == "a.wmv" else None
    source = make_film(tmp_path / name, FRAMES, picture, codec, container=container, bframes=0)
    video, out = copied(source, suffix)
    (track,) = plan_sound(video, suffix)
    assert track.action == action
    if action == "encode":
        check_message(str(track.note(suffix)))
        with av.open(str(out)) as container_out:
            assert container_out.streams.audio[0].codec_context.name == "aac"
    (at, samples), (at_before, before) = heard(out), heard(source)
    early = at_before - at  # AAC begins with 1024 samples of silence, which are hidden only before the film's beginning
    assert -0.001 < early < 0.0224 and abs(len(samples) - len(before)) <= 2048
    count = min(len(samples), len(before)) - 4096
    lags = range(round(48000 * early) - 48, round(48000 * early) + 49, 4)  # 1 ms, the unit of Matroska
    likeness = [np.corrcoef(samples[2048 + lag : count + lag], before[2048:count])[0, 1] for lag in lags]
    assert max(likeness) > 0.98


def test_a_film_without_pictures_says_so(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream: Any = output.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with expect_error("sound.mp4: ", hide={str(tmp_path): "."}):
        probe(tmp_path / "sound.mp4")


def test_frames_that_are_missing_are_counted(tmp_path: Path) -> None:
    source = make_film(tmp_path / "b.avi", FRAMES, audio=None)
    data = bytearray(source.read_bytes())
    place = data.rfind(b"00dc", 0, data.rfind(b"idx1")) + 8
    data[place : place + 60] = bytes(60)
    source.write_bytes(data)
    with pytest.raises(UserError, match=r"b\.avi: .*(frames? .*cannot be decoded|Invalid data)"):
        list(read(probe(source)))
