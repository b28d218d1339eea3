"""Read and write videos with PyAV (extra [video]): frames with their times, and sound copied packet by packet.

FFmpeg reports damage, and reads every container. A missing frame always raises an error.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fsframework.core.errors import UserError
from fsframework.utils.files import replacing

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")  # of videos
WRITTEN = (".mp4", ".mov", ".mkv")  # containers of H.264 and any sound
QUALITY = {"crf": "18", "preset": "medium"}  # of libx264: nearly indistinguishable from the original
COLOURS = ("color_range", "colorspace", "color_primaries", "color_trc")
UNKNOWN = 2  # FFmpeg's number for an unspecified colour space
MEND = "get the file again"


def is_video(path: Path) -> bool:
    """Return whether a file has a video's suffix."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Video:
    """Properties of a video that are known before decoding."""

    path: Path
    width: int  # of the upright frame, in pixels
    height: int
    turns: int  # quarter turns, counter-clockwise, that make a stored frame upright
    times: tuple[int, ...]  # of the frames, rising, in units of `base`
    base: Fraction  # seconds
    rate: Fraction  # frames a second, on average
    sound: int  # streams
    colours: tuple[int, ...]  # range, space, primaries and transfer, as FFmpeg numbers them

    @property
    def seconds(self) -> float:
        """Return the duration from the first frame to the end of the last, in seconds."""
        return float((self.times[-1] - self.times[0]) * self.base + 1 / self.rate)


def probe(path: Path) -> Video:
    """Return the properties of a video, decoding at most one frame.

    Raises
    ------
    UserError
        PyAV is not installed, or the file cannot be read, or holds no frames.
    """
    with opened(path) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        colours = tuple(int(getattr(stream.codec_context, key)) for key in COLOURS)
    if not times:
        raise UserError(f"{path}: holds no frames; {MEND}")
    if len(set(times)) != len(times):
        raise UserError(f"{path}: has frames without times of their own; convert it, such as by ffmpeg -i IN OUT.mp4")
    with opened(path) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream), None)
        if frame is None:
            raise UserError(f"{path}: holds no frame that can be decoded; {MEND}")
        turns = round(frame.rotation / 90) % 4
        width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        sound = len(container.streams.audio)
        return Video(path, width, height, turns, tuple(times), stream.time_base, Fraction(rate), sound, colours)


def read(video: Video, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Yield upright frames (H, W, 3) uint8, from index `start` on, before `stop`.

    Raises UserError if the file cannot be decoded, or its frames differ from the probed ones.
    """
    stop = len(video.times) if stop is None else stop
    index_of = {time: index for index, time in enumerate(video.times)}
    expected = start
    with opened(video.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if start:
            container.seek(video.times[start], stream=stream)  # to the key frame before it
        for frame in container.decode(stream):
            index = index_of.get(frame.pts, -1)
            if index < expected:
                continue
            if index > expected or expected >= stop:
                break
            yield upright(frame, video.turns)
            expected += 1
    if expected < stop:
        raise UserError(f"{video.path}: frame {expected + 1} of {len(video.times)} cannot be decoded; {MEND}")


def upright(frame: Any, turns: int) -> np.ndarray:
    """Return the pixels of a frame of PyAV as (H, W, 3) uint8, rotated by quarter turns."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def write(path: Path, video: Video, frames: Iterable[np.ndarray], start: int = 0) -> int:
    """Encode frames as H.264 in an MP4 file, atomically; return the number of frames.

    Parameters
    ----------
    path:
        The file.
    video:
        The video whose size, times and colours the frames have.
    frames:
        (H, W, 3) uint8, upright.
    start:
        The index of the first frame in that video.
    """
    import av

    count = 0
    colours = dict(zip(COLOURS, video.colours, strict=True))
    with replacing(path) as temporary, _write_errors(path), av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=video.rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, _pixel_format(video)
        stream.time_base = stream.codec_context.time_base = video.base
        stream.options = dict(QUALITY)
        for key, value in colours.items():
            setattr(stream.codec_context, key, value)
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format=stream.pix_fmt,
                dst_colorspace=colours["colorspace"] if colours["colorspace"] != UNKNOWN else None,
                dst_color_range=colours["color_range"] or None,
            )
            frame.pts, frame.time_base = video.times[start + count], video.base
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode())
    return count


def _pixel_format(video: Video) -> str:
    """Return FFmpeg's name of the pixel format.

    Subsampled colours, which every player supports, need even sides.
    """
    return "yuv444p" if video.width % 2 or video.height % 2 else "yuv420p"


def join(segments: list[Path], video: Video, out: Path, finish: Callable[[Path], None] | None = None) -> None:
    """Concatenate encoded segments and add the original's sound, packet by packet.

    `out` ends in .mp4, .mov or .mkv and is replaced atomically; before that, `finish` may change the file. Raises
    UserError if the container cannot hold the sound.
    """
    import av

    formats = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
    with replacing(out) as temporary, _write_errors(out):
        with (
            opened(video.path) as source,
            opened(segments[0]) as first,
            av.open(str(temporary), "w", format=formats[out.suffix.lower()]) as container,
        ):
            output = container.add_stream_from_template(first.streams.video[0])
            output.time_base = video.base
            audio = {stream.index: container.add_stream_from_template(stream) for stream in source.streams.audio}
            for packet in _interleave(_video_packets(segments), _audio_packets(source)):
                packet.stream = output if packet.stream.type == "video" else audio[packet.stream.index]
                container.mux(packet)
        if finish is not None:
            finish(temporary)


def _video_packets(segments: list[Path]) -> Iterator[Any]:
    """Yield the video packets of all segments."""
    for segment in segments:
        with opened(segment) as container:
            yield from (packet for packet in container.demux(video=0) if packet.size)


def _audio_packets(source: Any) -> Iterator[Any]:
    """Yield the audio packets of a container."""
    streams = source.streams.audio
    if streams:
        source.seek(0)
        yield from (packet for packet in source.demux(*streams) if packet.size)


def _interleave(*flows: Iterator[Any]) -> Iterator[Any]:
    """Yield the packets of several streams in the order of their decoding times, as players expect."""
    heads = [(flow, next(flow, None)) for flow in flows]
    while waiting := [(flow, head) for flow, head in heads if head is not None]:
        flow, head = min(waiting, key=lambda pair: pair[1].dts * pair[1].time_base)
        yield head  # before advancing the flow, which may close the file of this packet
        heads = [(other, next(other, None) if other is flow else packet) for other, packet in heads]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a container for reading; yield it.

    Raises UserError if PyAV is missing or the container is damaged.
    """
    try:
        import av
    except ImportError:
        raise UserError(f'{path}: videos need PyAV; try: pip install "fsframework[video]"') from None
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, IndexError, OSError) as error:  # IndexError: it has no video stream
        reason = getattr(error, "strerror", None) or error or "it holds no frame"
        raise UserError(f"{path}: cannot be read as a video: {reason}; {MEND}") from error


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Raise FFmpeg's errors in writing as UserError."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror or error}; try .mkv, which holds more codecs"
        ) from error
