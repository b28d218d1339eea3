"""Read and write moving pictures (GIF, animated WebP, APNG) with the interface of videos: frames with their times.

Frames are decoded one after the other by Pillow, which applies disposal and blending, so that memory is bounded. AVIF
is read, too. Files are written by `animation_formats`.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from fsframework.core.errors import UserError
from fsframework.media import image_io, video_io
from fsframework.media.animation_formats import LONGEST, WRITERS, AnimationFrame, is_lossy_webp
from fsframework.media.image_io import TargetImage
from fsframework.media.video_io import MEND, UNKNOWN, Video
from fsframework.media.video_planes import LIMITED
from fsframework.utils.files import replacing

WRITTEN = tuple(WRITERS)  # suffixes of animations that are written
OTHER = ".webp"  # suffix that is appended in folders to animations in other formats
BASE = Fraction(1, 90_000)  # seconds; a unit in which times of all formats are whole numbers
LEAST_DELAY = Fraction(11, 1000)  # seconds; browsers show a frame with a shorter delay for `SHOWN`
SHOWN = Fraction(1, 10)
PLAYS_MISSING = {"GIF": 1}  # numbers of plays of a file that states none; other formats repeat without end
_STARTS = (b"GIF8", b"\x89PNG", b"RIFF")


@dataclass(frozen=True)
class Animation(Video):
    """Properties of a moving picture, whose `times` are those at which browsers show its frames."""

    delays: tuple[Fraction, ...] = ()  # of the frames in seconds, as the file states them
    plays: int = 0  # 0: without end
    is_transparent: bool = False  # whether a frame has transparent pixels
    is_lossless: bool = True
    profile: bytes | None = None  # ICC
    first: int = 0  # index of the first frame in the file; 1 if an image precedes that is not part of the animation


def is_animation(path: Path) -> bool:
    """Return whether a file is a moving picture, by its content."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
        if not start.startswith(_STARTS) and start[4:12] != b"ftypavis":
            return False
        with image_io.opened(path) as image:
            return image_io.is_moving(image) and image.format != "JXL"
    except Exception:  # whatever cannot be opened is reported where it is read
        return False


def is_film(path: Path) -> bool:
    """Return whether a file is a video, by its suffix, or a moving picture, by its content."""
    return video_io.is_video(path) or is_animation(path)


def probe(path: Path) -> Video:
    """Return the properties of a video or a moving picture; every frame of the latter is decoded once.

    Raises UserError if the file cannot be read.
    """
    if not is_animation(path):
        return video_io.probe(path)
    delays: list[Fraction] = []
    is_transparent = False
    with _opened(path) as image:
        first = int(bool(image.info.get("default_image")))
        for target in _targets(image, path, first, None):
            if not delays:
                height, width = target.frame.shape[:2]
                profile = target.profile
            is_transparent |= target.alpha is not None
            delays.append(Fraction(image.info.get("duration", 0) / 1000).limit_denominator(LONGEST))
        plays = image.info.get("loop", PLAYS_MISSING.get(str(image.format), 0))
        if image.format == "GIF" and "loop" in image.info and plays > 0:
            plays += 1  # GIF counts repetitions
        is_lossless = image.format != "AVIF" and not is_lossy_webp(path.read_bytes())
    if not delays:
        raise UserError(f"{path}: holds no frames; {MEND}")
    shown = [delay if delay >= LEAST_DELAY else SHOWN for delay in delays]
    times = [round(time / BASE) for time in accumulate(shown, initial=Fraction(0))]
    colours = (LIMITED, 1 if min(width, height) >= 720 else 6, UNKNOWN, UNKNOWN)  # as of a video in RGB
    return Animation(
        path,
        width,
        height,
        0,
        tuple(times[:-1]),
        BASE,
        Fraction(len(delays)) / sum(shown),
        0,
        colours,
        last=times[-1] - times[-2],
        pixel_format="rgb24",
        is_rgb=True,
        has_alpha=is_transparent,
        delays=tuple(delays),
        plays=plays,
        is_transparent=is_transparent,
        is_lossless=is_lossless,
        profile=profile,
        first=first,
    )


def read(video: Video, start: int = 0, stop: int | None = None, rough: bool = False) -> Iterator[np.ndarray]:
    """Yield frames of a video or a moving picture, (H, W, 3) uint8; parameters and errors as of `video_io.read`."""
    if not isinstance(video, Animation):
        return video_io.read(video, start, stop, rough)
    return (target.frame for target in read_targets(video, start, stop))


def read_targets(animation: Animation, start: int = 0, stop: int | None = None) -> Iterator[TargetImage]:
    """Yield frames with what a result keeps of them. Raise UserError if one cannot be decoded."""
    stop = len(animation.times) if stop is None else stop
    with _opened(animation.path) as image:
        yield from _targets(image, animation.path, animation.first + start, animation.first + stop)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a moving picture; yield it. Raise UserError if it cannot be read."""
    try:
        with image_io.opened(path) as image:
            yield image
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{path}: cannot be read as a moving picture: {error}; {MEND}") from error


def _targets(image: Image.Image, path: Path, start: int, stop: int | None) -> Iterator[TargetImage]:
    """Yield the frames of an open animation from one index in the file to another, or to its end."""
    image_io.check_size(image, str(path), image_io.MAX_PIXELS)
    index, shape = start, None
    while stop is None or index < stop:
        try:
            image.seek(index)
        except EOFError:
            if stop is None:
                return
            raise UserError(f"{path}: frame {index + 1} of {stop} is missing; {MEND}") from None
        except Exception as error:  # decoders raise errors of all types on damaged files
            raise UserError(f"{path}: frame {index + 1} cannot be decoded: {error}; {MEND}") from error
        try:
            image.load()
            target = image_io.target_of(image)
        except Exception as error:
            raise UserError(f"{path}: frame {index + 1} cannot be decoded: {error}; {MEND}") from error
        shape = shape or target.frame.shape
        if target.frame.shape != shape:
            raise UserError(f"{path}: frame {index + 1} has another size than the first; {MEND}")
        yield target
        index += 1


def write(path: Path, video: Video, frames: Iterable[np.ndarray], start: int = 0) -> int:
    """Write frames of a moving picture without loss, as a zip file of PNG, atomically; return the number of frames.

    Parameters as of `video_io.write`.
    """
    count = 0
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for count, frame in enumerate(frames, 1):
            _, content = cv2.imencode(".png", np.ascontiguousarray(frame[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1])
            archive.writestr(f"{count - 1:04}.png", content.tobytes())
    return count


def _written(segments: list[Path]) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 of segments by `write`."""
    for segment in segments:
        with zipfile.ZipFile(segment) as archive:
            for name in sorted(archive.namelist()):
                frame = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
                assert frame is not None
                yield np.ascontiguousarray(frame[..., ::-1])


def join(
    segments: list[Path],
    video: Video,
    out: Path,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write the frames of segments as a moving picture in the format of the suffix of `out`, atomically.

    The result has the delays, the number of plays and the transparency of the original, and its colour profile where
    the format has one. Parameters as of `video_join.join`. Raises UserError if a file cannot be read or written.
    """
    assert isinstance(video, Animation)
    write_file = WRITERS[out.suffix.lower()]
    frames = (
        AnimationFrame(_pixels(target, painted, out), target.frame, delay)
        for target, painted, delay in zip(read_targets(video), _written(segments), video.delays, strict=True)
    )
    with replacing(out) as temporary:
        with temporary.open("wb") as file:
            write_file(file, frames, video)
        if finish is not None:
            finish(temporary)


def _pixels(target: TargetImage, painted: np.ndarray, out: Path) -> np.ndarray:
    """Return a frame of a result, (H, W, 3 or 4) uint8, in the colours of the original if the format has profiles."""
    if out.suffix.lower() != ".gif" or target.profile is None:
        return target.in_own_colours(painted, transparent=True)
    return painted if target.alpha is None else np.dstack([painted, target.alpha])
