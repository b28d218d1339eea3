"""Videos with PyAV (extra [video]): frames in and out, with their times; sound is copied packet by packet.

FFmpeg says where a file is damaged, and knows every container; nothing here is silent about a frame that is missing.
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
WRITTEN = (".mp4", ".mov", ".mkv")  # that hold H.264 and any sound
QUALITY = {"crf": "18", "preset": "medium"}  # of libx264: hardly told from the original
COLOURS = ("color_range", "colorspace", "color_primaries", "color_trc")
UNKNOWN = 2  # FFmpeg's number for a colour space that nobody says
MEND = "get the file again"


def is_video(path: Path) -> bool:
    """Whether a file is called like a video."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Video:
    """What is known of a video before it is decoded."""

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
        """From the first frame to the end of the last."""
        return float((self.times[-1] - self.times[0]) * self.base + 1 / self.rate)


def probe(path: Path) -> Video:
    """Look at a video, without decoding more than a frame.

    Raises
    ------
    UserError
        PyAV is not installed, or the file cannot be read, or holds no picture.
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
    """Upright frames (H, W, 3) uint8, from place `start` on, before `stop`.

    Raises UserError if the file cannot be decoded, or has other frames than it says.
    """
    stop = len(video.times) if stop is None else stop
    wanted = {time: place for place, time in enumerate(video.times)}
    due = start
    with opened(video.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if start:
            container.seek(video.times[start], stream=stream)  # to the key frame before it
        for frame in container.decode(stream):
            place = wanted.get(frame.pts, -1)
            if place < due:
                continue
            if place > due or due >= stop:
                break
            yield upright(frame, video.turns)
            due += 1
    if due < stop:
        raise UserError(f"{video.path}: frame {due + 1} of {len(video.times)} cannot be decoded; {MEND}")


def upright(frame: Any, turns: int) -> np.ndarray:
    """The pixels of one of PyAV's frames (H, W, 3) uint8, turned."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def write(path: Path, video: Video, frames: Iterable[np.ndarray], start: int = 0) -> int:
    """Encode frames as H.264 in an MP4 file, which appears whole or not at all.

    Parameters
    ----------
    path:
        The file.
    video:
        Whose size, times and colours they have.
    frames:
        (H, W, 3) uint8, upright.
    start:
        The place of the first one in that video.

    Returns
    -------
    How many there were.
    """
    import av

    done = 0
    colours = dict(zip(COLOURS, video.colours, strict=True))
    with replacing(path) as temporary, _failing(path), av.open(str(temporary), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=video.rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, _pixels(video)
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
            frame.pts, frame.time_base = video.times[start + done], video.base
            container.mux(stream.encode(frame))
            done += 1
        container.mux(stream.encode())
    return done


def _pixels(video: Video) -> str:
    """The pixel format: colours at half the side, which every player knows, where both sides are even."""
    return "yuv444p" if video.width % 2 or video.height % 2 else "yuv420p"


def join(segments: list[Path], video: Video, out: Path, finish: Callable[[Path], None] | None = None) -> None:
    """Put encoded segments behind each other and the original's sound beside them, packet by packet.

    `out` ends in .mp4, .mov or .mkv and is replaced in one step; before that, `finish` may change the file. Raises
    UserError if the sound does not go there.
    """
    import av

    formats = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
    with replacing(out) as temporary, _failing(out):
        with (
            opened(video.path) as source,
            opened(segments[0]) as first,
            av.open(str(temporary), "w", format=formats[out.suffix.lower()]) as container,
        ):
            picture = container.add_stream_from_template(first.streams.video[0])
            picture.time_base = video.base
            sounds = {stream.index: container.add_stream_from_template(stream) for stream in source.streams.audio}
            for packet in _by_time(_pictures(segments), _sounds(source)):
                packet.stream = picture if packet.stream.type == "video" else sounds[packet.stream.index]
                container.mux(packet)
        if finish is not None:
            finish(temporary)


def _pictures(segments: list[Path]) -> Iterator[Any]:
    for segment in segments:
        with opened(segment) as container:
            yield from (packet for packet in container.demux(video=0) if packet.size)


def _sounds(source: Any) -> Iterator[Any]:
    streams = source.streams.audio
    if streams:
        source.seek(0)
        yield from (packet for packet in source.demux(*streams) if packet.size)


def _by_time(*flows: Iterator[Any]) -> Iterator[Any]:
    """Packets of several flows in the order of their times, as players want to meet them."""
    heads = [(flow, next(flow, None)) for flow in flows]
    while waiting := [(flow, head) for flow, head in heads if head is not None]:
        flow, head = min(waiting, key=lambda each: each[1].dts * each[1].time_base)
        yield head  # before the next is asked for, since a flow may close the file that this one belongs to
        heads = [(each, next(each, None) if each is flow else kept) for each, kept in heads]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A container whose streams can be read. Raises UserError if PyAV is missing or anything in it is damaged."""
    try:
        import av
    except ImportError:
        raise UserError(f'{path}: videos need PyAV; try: pip install "fsframework[video]"') from None
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, IndexError, OSError) as error:  # IndexError: there is no picture in it
        reason = getattr(error, "strerror", None) or error or "it holds no frame"
        raise UserError(f"{path}: cannot be read as a video: {reason}; {MEND}") from error


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Turn FFmpeg's errors in writing into one line."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; try .mkv, which takes more") from error
