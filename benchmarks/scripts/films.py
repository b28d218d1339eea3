"""Small films, written by PyAV in any container: pictures that differ, a tone, times that are moved."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import skimage.data

from fsframework.media.video_info import COLOURS

RATE = 25  # frames/s
SOUND_RATE = 48000  # samples/s


PICTURE: np.ndarray = cv2.GaussianBlur(
    cv2.resize(skimage.data.astronaut(), (160, 120), interpolation=cv2.INTER_AREA), (0, 0), 2
)
LOSSLESS = {"crf": "0", "preset": "ultrafast"}


def film(
    file: Path,
    pixel_format: str = "yuv420p",
    colours: tuple[int, ...] = (0, 2, 2, 2),
    codec: str = "libx264",
    aspect: Fraction | None = None,
    matrix: tuple[int, ...] | None = None,
    options: dict[str, str] | None = None,
    flags: int = 0,
    pixels: np.ndarray = PICTURE,
) -> Path:
    """Write five frames of a picture; range, space, primaries and transfer are `colours`.

    `pixels` are (H, W, 3) uint8 or uint16, `options` and `flags` of the encoder.
    """
    with av.open(str(file), "w") as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = pixel_format
        stream.options = {**(LOSSLESS if codec == "libx264" else {}), **(options or {})}
        stream.codec_context.flags |= flags
        for key, value in zip(COLOURS, colours, strict=True):
            setattr(stream.codec_context, key, value)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        space = {} if colours[1] in (0, 2) else {"dst_colorspace": colours[1]}
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.dtype == np.uint8 else "rgb48le")
            frame = frame.reformat(format=pixel_format, dst_color_range=colours[0] or None, **space)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file


def pictures(count: int = 20, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Return frames (H, W, 3) uint8, each with a bar at its own place."""
    frames = []
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 60, np.uint8)
        frame[:, number * size[0] // count :][:, :4] = (230, 200, 120)
        frames.append(frame)
    return frames


def make_film(
    file: Path,
    frames: Sequence[np.ndarray],
    video: str = "libx264",
    audio: str | None = "aac",
    picture_at: float = 0.0,
    shift: float = 0.0,
    container: str | None = None,
    group: int = 8,
    bframes: int = 2,
    prepare: Callable[[Any], None] | None = None,
) -> Path:
    """Write frames with a tone as long as the film; return the path.

    `picture_at` are seconds by which the picture begins after the sound, `shift` seconds added to all times, `group`
    the frames from key frame to key frame, `bframes` those in a row that depend on later ones. `prepare` changes the
    stream before it is opened, such as its colours. Frames with four channels are transparent.
    """
    with av.open(str(file), "w", format=container) as output:
        stream: Any = output.add_stream(video, rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", group
        stream.codec_context.max_b_frames = bframes
        stream.options = {"crf": "12"} if video == "libx264" else {}
        stream.bit_rate = 0 if video == "libx264" else 2_000_000
        if prepare is not None:
            prepare(stream)
        packets = []
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.shape[2] == 3 else "rgba")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            packets += stream.encode(frame)
        if audio is not None:
            packets += _tone(output, audio, len(frames) / RATE + max(0.0, picture_at))
        packets += stream.encode()
        for packet in packets:
            late = shift + (picture_at if packet.stream is stream else 0)
            moved = round(late / packet.time_base)
            packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return file


def _tone(output: Any, codec: str, seconds: float) -> list[Any]:
    """Return the packets of a tone in a new stream of a container."""
    stream = output.add_stream(codec, rate=SOUND_RATE)
    stream.layout, stream.bit_rate = "mono", 96_000
    times = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    samples = (9000 * np.sin(2 * np.pi * (200 * times + 300 * times**2))).astype(np.int16)  # its pitch rises
    convert = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=SOUND_RATE)
    packets = []
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        for converted in convert.resample(frame):
            converted.pts = start
            packets += stream.encode(converted)
    return packets + stream.encode(None)


def copy_film(source: Path, file: Path, shift: float) -> Path:
    """Copy the packets of a film with all times moved, as `ffmpeg -ss T -c copy` does; return the path."""
    with av.open(str(source)) as read, av.open(str(file), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                moved = round(shift / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return file


def streams_with_sound_twice(source: Any, output: Any) -> list[Any]:
    """Add the streams of a film with one sound track to a container, and that track again; return the three."""
    streams = (source.streams.video[0], source.streams.audio[0], source.streams.audio[0])
    return [output.add_stream_from_template(stream) for stream in streams]


def copy_with_sound_twice(source: Any, output: Any, streams: Sequence[Any]) -> None:
    """Copy the packets of a film to the streams of `streams_with_sound_twice`."""
    picture, sound = source.streams.video[0], source.streams.audio[0]
    for packet in source.demux(picture, sound):
        if not packet.size:
            continue
        if packet.stream is picture:
            packet.stream = streams[0]
            output.mux(packet)
            continue
        second = av.Packet(bytes(packet))
        second.pts, second.dts, second.time_base = packet.pts, packet.dts, packet.time_base
        packet.stream, second.stream = streams[1], streams[2]
        output.mux(packet)
        output.mux(second)


def heard(file: Path) -> tuple[float, np.ndarray]:
    """Return the beginning of the first sound track, in seconds, and its samples."""
    with av.open(str(file)) as container:
        frames = list(container.decode(container.streams.audio[0]))
        convert = av.AudioResampler(format="s16", layout="mono", rate=frames[0].sample_rate)
        samples = np.concatenate([part.to_ndarray()[0] for frame in frames for part in convert.resample(frame)])
        first = float((frames[0].pts or 0) * (frames[0].time_base or 0))
    return first, samples.astype(int)


def seen(file: Path) -> list[float]:
    """Return the times of the frames that FFmpeg decodes, in seconds."""
    with av.open(str(file)) as container:
        return [float((frame.pts or 0) * (frame.time_base or 0)) for frame in container.decode(video=0)]


def seconds(file: Path) -> float:
    """Return the duration of a film as its container states it."""
    with av.open(str(file)) as container:
        return (container.duration or 0) / 1_000_000
