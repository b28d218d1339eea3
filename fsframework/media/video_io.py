"""Read and write videos with PyAV (extra [video]): frames with their times.

FFmpeg reports damage, and reads every container. A missing frame always raises an error. Packets that an edit list
hides, and packets before the first key frame, are no frames.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from fsframework.core.errors import UserError
from fsframework.media.video_encoder import (
    CONVERT,
    EncoderPlan,
    add_pictures,
    default_plan,
    last_packets,
)
from fsframework.media.video_info import COLOURS, PQ, require_pyav
from fsframework.media.video_info import Video as Video
from fsframework.media.video_planes import (
    BICUBIC,
    FULL,
    LIMITED,
    NEAREST,
    repaint,
    rgb_to_yuv,
    visible_light,
    without_siting,
)
from fsframework.utils.files import replacing

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")  # of videos
WRITTEN = (".mp4", ".mov", ".mkv")  # containers of H.264 and any sound
RGB = 0  # FFmpeg's number for the colour space of RGB
UNKNOWN = 2  # FFmpeg's number for an unspecified colour space
MEND = "get the file again"
ENCRYPTED = ("encv", "drmi")  # codec tags of protected films
REORDERED = 64  # frames, more than a decoder holds back
DYNAMIC = {  # by the beginning of FFmpeg's names of side data
    "DOVI": "Dolby Vision",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}
TINY = 8  # bytes; smaller packets of MPEG-4 in AVI only announce that a frame came earlier


def is_video(path: Path) -> bool:
    """Return whether a file has a video's suffix."""
    return path.suffix.lower() in SUFFIXES


class _Packet(NamedTuple):
    """A packet's facts, from which the times of frames are derived."""

    pts: int | None
    dts: int | None
    size: int  # bytes
    duration: int | None
    is_keyframe: bool


def probe(path: Path) -> Video:
    """Return the properties of a video.

    At most one frame is decoded, unless the container does not give the times of the frames: AVI with frames out of
    order, or a recording that begins before a key frame.

    Raises
    ------
    UserError
        PyAV is not installed, or the file cannot be read, or holds no frames.
    """
    with opened(path) as container:
        stream = picture_stream(container, path)
        packets = [
            _Packet(packet.pts, packet.dts, packet.size, packet.duration, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        colours = tuple(int(getattr(stream.codec_context, key)) for key in COLOURS)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        base, index, sound = stream.time_base, stream.index, len(container.streams.audio)
        # AVI has no times of presentation; FFmpeg counts packets instead, which is wrong for frames out of order.
        counted = container.format.name == "avi" and stream.codec_context.has_b_frames > 0
        begin = None if container.start_time is None else Fraction(container.start_time, 1_000_000)
    if not packets:
        raise UserError(f"{path}: holds no frames; {MEND}")
    times, last, marks = _frame_times(path, packets, counted, 1 / (rate * base))
    with opened(path) as container:
        frame = next(container.decode(picture_stream(container, path)), None)
        if frame is None:
            raise UserError(f"{path}: holds no frame that can be decoded; {MEND}")
        mirrored, turns = _orientation(frame)
        width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        aspect = 1 / aspect if turns % 2 else aspect
        stream = picture_stream(container, path)
        facts = _pixel_facts(frame, stream.codec_context, turns)
        facts["has_alpha"] |= dict(stream.metadata).get("alpha_mode") == "1"  # of WebM, which FFmpeg's decoder omits
        if facts["is_rgb"]:  # it is written as limited range, with the usual matrix of its size
            colours = (LIMITED, 1 if min(width, height) >= 720 else 6, *colours[2:])
    start = min(times[0] * base, times[0] * base if begin is None else begin)
    return Video(
        path,
        width,
        height,
        turns,
        times,
        base,
        rate,
        sound,
        colours,
        start,
        last,
        index,
        mirrored,
        aspect,
        marks,
        **facts,
    )


def _pixel_facts(frame: Any, context: Any, turns: int) -> dict[str, Any]:
    """Return the properties of `Video` from `pixel_format` on, of a first frame and its decoder."""
    kind = frame.format
    is_rgb = kind.is_rgb or kind.name == "pal8"
    sampling = tuple(8 // size(8) for size in (kind.chroma_width, kind.chroma_height))  # 1, 2 or 4 pixels
    if len(kind.components) < 3 and not is_rgb:  # grey
        sampling = (2, 2)  # pixels: as of most videos
    across, down = (0, 0) if is_rgb else (size.bit_length() - 1 for size in sampling)
    order: str = ""
    if frame.interlaced_frame:
        order = "bottom" if context.field_order in (3, 4) or context.name == "dvvideo" else "top"
    data = {each.type.name: bytes(each) for each in frame.side_data}
    dynamic = [words for name, words in DYNAMIC.items() if any(key.startswith(name) for key in data)]
    return {
        "pixel_format": kind.name,
        "depth": max((component.bits for component in kind.components), default=8),
        "sampling": (down, across) if turns % 2 else (across, down),
        "is_rgb": is_rgb,
        "field_order": order,
        "mastering": _mastering(data.get("MASTERING_DISPLAY_METADATA", b"")),
        "light_level": tuple(np.frombuffer(data.get("CONTENT_LIGHT_LEVEL", b"")[:8], np.uint32).tolist()),
        "dynamic": tuple(dynamic),
        "captions": "A53_CC" in data,
        "has_alpha": any(component.is_alpha for component in kind.components),
    }


def _mastering(data: bytes) -> tuple[Fraction, ...]:
    """Return `Video.mastering` from FFmpeg's structure: ten fractions, and whether both parts are set."""
    numbers = np.frombuffer(data, np.int32).tolist()
    if len(numbers) < 22 or not all(numbers[20:22]) or not all(numbers[1:20:2]):
        return ()
    return tuple(Fraction(numbers[index], numbers[index + 1]) for index in range(0, 20, 2))


def _frame_times(
    path: Path, packets: list[_Packet], counted: bool, step: Fraction
) -> tuple[tuple[int, ...], int, tuple[int | None, ...] | None]:
    """Return the times of the frames, the duration of the last, and `Video.marks`.

    Parameters
    ----------
    path:
        The file.
    packets:
        Its packets with pictures, in the order of decoding.
    counted:
        Whether the times of presentation are invented.
    step:
        Time from frame to frame, in the stream's units.
    """
    times = [packet.pts for packet in packets if packet.pts is not None]
    is_timed = not counted and len(set(times)) == len(packets)
    first_key = next((index for index, packet in enumerate(packets) if packet.is_keyframe), 0)
    if is_timed and first_key == 0 and times[0] == min(times):
        end = max(packets, key=lambda packet: packet.pts or 0)
        return tuple(sorted(times)), int(end.duration or 0), None
    with opened(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        decoded = [(frame.pts, frame.dts) for frame in container.decode(stream)]
    if not decoded:
        raise UserError(f"{path}: holds no frame that can be decoded; {MEND}")
    if is_timed:  # frames that depend on others before the file's beginning cannot be shown
        shown = tuple(pts for pts, _ in decoded)
        expected = tuple(sorted(time for time in times if time >= shown[0]))
        if shown != expected:
            raise UserError(
                f"{path}: {len(set(expected) - set(shown))} of {len(expected)} frames cannot be decoded; {MEND}"
            )
        return shown, 0, None
    coded = [packet for packet in packets if packet.size > TINY] if len(decoded) < len(packets) else packets
    if len(decoded) < len(coded):
        missing = len(coded) - len(decoded)
        raise UserError(f"{path}: {missing} of {len(coded)} frames cannot be decoded; {MEND}")
    clock = sorted(packet.dts for packet in coded if packet.dts is not None)
    if len(set(clock)) != len(decoded):
        clock = [round(number * step) for number in range(len(decoded))]
    return tuple(clock), 0, tuple(dts for _, dts in decoded)


def read(video: Video, start: int = 0, stop: int | None = None, rough: bool = False) -> Iterator[np.ndarray]:
    """Yield upright frames (H, W, 3) uint8, from index `start` on, before `stop`.

    `rough` converts ten times faster, to colours that are a level too dark, which is enough for finding faces. Raises
    UserError if the file cannot be decoded, or its frames differ from the probed ones.
    """
    stop = len(video.times) if stop is None else stop
    expected = start
    for index, frame in _numbered(video, start):
        if index < expected:
            continue
        if index > expected or expected >= stop:
            break
        yield upright(frame, video.turns, video.mirrored, rough)
        expected += 1
    if expected < stop:
        raise UserError(f"{video.path}: frame {expected + 1} of {len(video.times)} cannot be decoded; {MEND}")


def _numbered(video: Video, start: int) -> Iterator[tuple[int, Any]]:
    """Yield frames of PyAV with their indices, from `start` or an earlier one on; -1 is no frame of the video."""
    marks = video.times if video.marks is None else video.marks
    known = {mark: index for index, mark in enumerate(marks) if mark is not None}

    def index_of(frame: Any) -> int:
        return known.get(frame.pts if video.marks is None else frame.dts, -1)

    # Containers without an index, such as MPEG-TS, are searched by place: the first frame may be a later one.
    for earlier in (0, REORDERED, 16 * REORDERED, start):
        begin = max(0, start - earlier)
        frames = _decoded(video, video.times[begin] if begin else None)
        first = next((frame for frame in frames if index_of(frame) >= 0), None)
        if begin == 0 or (first is not None and index_of(first) <= start):
            break
    if first is None:
        return
    index = index_of(first)
    yield index, first
    if video.marks is None:
        yield from ((index_of(frame), frame) for frame in frames)
    else:  # the decoder's last frames have no times
        yield from enumerate(frames, index + 1)


def _decoded(video: Video, time: int | None) -> Iterator[Any]:
    """Yield the decoded frames from the key frame before a time on, in the stream's units; None: all."""
    with opened(video.path) as container:
        stream = container.streams[video.stream]
        stream.thread_type = "AUTO"
        if time is not None:
            container.seek(time, stream=stream)
        yield from container.decode(stream)


def picture_stream(container: Any, path: Path) -> Any:
    """Return the stream of pictures of a container. Raise UserError if there is none that FFmpeg can decode."""
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise UserError(f"{path}: holds no moving pictures, only sound or a cover; give a film")
    stream = streams[0]
    if stream.codec_context is None:
        raise UserError(f"{path}: the installed FFmpeg cannot decode the pictures' codec; {CONVERT}")
    if stream.codec_context.codec_tag in ENCRYPTED:
        raise UserError(f"{path}: is encrypted (DRM), so its frames cannot be decoded; give a film without protection")
    return stream


def _orientation(frame: Any) -> tuple[bool, int]:
    """Return whether a frame of PyAV is to be mirrored, and the quarter turns, counter-clockwise, after that."""
    data = next((each for each in frame.side_data if each.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return False, 0
    matrix = np.frombuffer(bytes(data), np.int32).astype(float)
    mirrored = matrix[0] * matrix[4] < matrix[1] * matrix[3]
    across = -matrix[:2] if mirrored else matrix[:2]
    return bool(mirrored), round(-np.degrees(np.arctan2(across[1], across[0])) / 90) % 4


def upright(frame: Any, turns: int, mirrored: bool = False, rough: bool = False) -> np.ndarray:
    """Return the pixels of a frame of PyAV as (H, W, 3) uint8, mirrored, then rotated by quarter turns.

    `rough` as in `read`.
    """
    pixels: np.ndarray
    transfer = frame.color_trc
    if not rough:
        frame = without_siting(frame)
    # Nearest samples lose nothing where chroma of the same height is written again.
    flags = {} if rough else {"interpolation": NEAREST if frame.format.chroma_height(4) < 4 else BICUBIC}
    if transfer == PQ:
        pixels = visible_light()[frame.to_ndarray(format="rgb48le", **flags)]
    else:
        pixels = frame.to_ndarray(format="rgb24", **flags)
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns or mirrored else pixels


def write(
    path: Path, video: Video, frames: Iterable[np.ndarray], start: int = 0, plan: EncoderPlan | None = None
) -> int:
    """Encode frames in an MP4 file, atomically; return the number of frames.

    Parameters
    ----------
    path:
        The file.
    video:
        The video whose size, times and colours the frames have. If it `keeps_samples`, it is read again, and the
        changes of its frames are written.
    frames:
        (H, W, 3) uint8, upright.
    start:
        The index of the first frame in that video.
    plan:
        Encoder and pixel format; None: those of `default_plan`.
    """
    import av

    plan = default_plan(video) if plan is None else plan
    count = 0
    times = video.output_times
    lengths = dict(zip(times, video.durations, strict=True))
    options = mp4_options(video)
    with (
        replacing(path) as temporary,
        write_errors(path),
        av.open(str(temporary), "w", format="mp4", options=options) as container,
    ):
        stream = add_pictures(container, video, plan)
        for frame in _encodable(video, frames, start, plan):
            frame.pts, frame.time_base = times[start + count], video.base
            container.mux(_lasting(stream.encode(frame), lengths))
            count += 1
        container.mux(_lasting(last_packets(stream, count), lengths))
    return count


def _encodable(video: Video, frames: Iterable[np.ndarray], start: int, plan: EncoderPlan) -> Iterator[Any]:
    """Yield frames (H, W, 3) uint8 from index `start` on as frames of PyAV in the format of an encoder."""
    colour_range, colour_space = video.colours[:2]
    natives = (frame for index, frame in _numbered(video, start) if index >= start) if video.keeps_samples else None
    for pixels in frames:
        if natives is None:
            frame = _converted(pixels, plan.pixel_format, colour_space, colour_range)
        else:
            native = next(natives)
            before = upright(native, video.turns, video.mirrored)
            frame = repaint(
                native, plan.pixel_format, before, pixels, video.turns, video.mirrored, colour_space, colour_range
            )
        yield frame if plan.stored == plan.pixel_format else frame.reformat(format=plan.stored)


def _converted(pixels: np.ndarray, pixel_format: str, colour_space: int, colour_range: int) -> Any:
    """Return pixels (H, W, 3) uint8 as a frame of PyAV.

    By default FFmpeg's converter rounds down, which darkens a film by a level each time it is written. Even with
    accurate rounding it rounds the chroma of the full range down, so that this one is computed here.
    """
    import av

    space = colour_space if colour_space != UNKNOWN else None
    if colour_range != FULL:
        return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format=pixel_format,
            dst_colorspace=space,
            dst_color_range=colour_range or None,
            interpolation=BICUBIC,
        )
    matrix = np.column_stack([rgb_to_yuv(colour_space), [0, 128, 128]])
    planes: Any = np.ascontiguousarray(cv2.transform(pixels, matrix).transpose(2, 0, 1))
    frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    frame.color_range = FULL
    return frame.reformat(format=pixel_format, src_color_range=FULL, dst_color_range=FULL, interpolation=BICUBIC)


def mp4_options(video: Video) -> dict[str, str]:
    """Return options of FFmpeg's writer of MP4 by which tracks begin at exact times.

    An edit list states the beginning in units of the whole file, which are milliseconds by default.
    """
    unit = video.base.denominator
    return {"movie_timescale": str(unit * -(-1000 // unit))}


def _lasting(packets: list[Any], lengths: dict[int, int]) -> list[Any]:
    """Return packets of a result with the durations of their frames, by time."""
    for packet in packets:
        packet.duration = lengths[packet.pts]
    return packets


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a container for reading; yield it.

    Raises UserError if PyAV is missing or the container is damaged.
    """
    require_pyav(str(path))
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as a video: {reason}; {MEND}") from error


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise FFmpeg's errors in writing as UserError."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror or error}; try .mkv, which holds more codecs"
        ) from error
