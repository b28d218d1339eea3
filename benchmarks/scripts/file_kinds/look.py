"""Read pictures, films and sounds by Pillow and PyAV alone, and find what a result lost of them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image, ImageOps

from file_kinds.case import Check, Outcome
from file_kinds.people import Cast, Scene, away, away_problems
from fsframework.core.types import Face

TICK = 0.0011  # seconds by which containers round times
SYNC = 0.025  # seconds by which sound may move against the picture: a packet of AAC
BIAS = 0.5  # grey levels by which pixels away from faces may differ on average, with sign
ACCURATE = 0x4 | 0x2000 | 0x4000 | 0x40000  # FFmpeg's flags: bicubic, full chroma in and out, accurate rounding
CODEC = 3.5  # grey levels by which they may differ on average, without sign


class Film(NamedTuple):
    """Contents of a film."""

    frames: list[np.ndarray]  # (H, W, 3) uint8, upright
    times: list[float]  # seconds from the first frame
    begin: float  # time of the first frame, in seconds


class Sound(NamedTuple):
    """A sound track."""

    begin: float  # seconds
    samples: int
    rate: int


def picture(file: Path) -> np.ndarray:
    """Return a picture as it is displayed, without its colour profile: (H, W, 3) uint8."""
    with Image.open(file) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def film(file: Path) -> Film:
    """Return the frames of a film and their times."""
    frames, times = [], []
    with av.open(str(file)) as container:
        for frame in container.decode(video=0):
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            frames.append(
                np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24", interpolation=ACCURATE), turns))
            )
            times.append(0.0 if frame.pts is None else float(frame.pts * (frame.time_base or 0)))
    begin = times[0] if times else 0.0
    return Film(frames, [time - begin for time in times], begin)


def sounds(file: Path) -> list[Sound | None]:
    """Return the sound tracks of a film; None for one that FFmpeg cannot decode."""
    with av.open(str(file)) as container:
        count = len(container.streams.audio)
    return [_sound(file, index) for index in range(count)]


def _sound(file: Path, index: int) -> Sound | None:
    begin, samples, rate = None, 0, 0
    with av.open(str(file)) as container:
        if getattr(container.streams.audio[index].codec_context, "name", None) is None:
            return None
        try:
            for frame in container.decode(audio=index):
                if begin is None:
                    begin = float((frame.pts or 0) * (frame.time_base or 0))
                samples, rate = samples + frame.samples, frame.sample_rate
        except av.FFmpegError:
            return None
    return None if begin is None else Sound(begin, samples, rate)


def seconds(file: Path) -> float:
    """Return the duration that a container states."""
    with av.open(str(file)) as container:
        return float(Fraction(container.duration or 0, 1_000_000))


def first_video(file: Path) -> dict[str, Any]:
    """Return what a film says of its pictures."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return {
            "codec": context.name,
            "pixel format": context.pix_fmt,
            "aspect ratio of pixels": stream.sample_aspect_ratio or Fraction(1),
            "range": int(context.color_range),
            "matrix": int(context.colorspace),
            "primaries": int(context.color_primaries),
            "transfer": int(context.color_trc),
        }


def same_times(before: Path, after: Path, rate: float | None = None) -> list[str]:
    """Return what a result lost of a film's frames, times and sounds; a `rate` replaces wrong times of the film."""
    one, other = film(before), film(after)
    if rate is not None:
        one = Film(one.frames, [number / rate for number in range(len(one.frames))], 0.0)
    found = []
    if len(one.frames) != len(other.frames):
        return [f"{len(other.frames)} frames instead of {len(one.frames)}"]
    apart = max(map(abs, np.subtract(one.times, other.times)), default=0)
    if apart > TICK:
        found.append(f"frames are displayed {1000 * apart:.0f} ms off")
    heard = [sound for sound in sounds(before) if sound is not None]
    kept = sounds(after)
    if len(heard) != len(kept):
        return [*found, f"{len(kept)} sound tracks instead of {len(heard)}"]
    for number, (sound, copy) in enumerate(zip(heard, kept, strict=True), 1):
        if copy is None:
            found.append(f"sound {number} cannot be decoded")
            continue
        late = (copy.begin - other.begin) - (sound.begin - one.begin)
        lasts, lasted = copy.samples / copy.rate, sound.samples / sound.rate
        if abs(late) > SYNC + TICK:
            found.append(f"sound {number} begins {1000 * late:+.0f} ms off")
        if abs(lasts - lasted) > 2 * SYNC:
            found.append(f"sound {number} lasts {lasts:.3f} s instead of {lasted:.3f}")
    return found


def film_check(
    cast: Cast,
    scenes: Sequence[Scene],
    swapped: Callable[[int], Sequence[int]],
    target: Path,
    looked: Sequence[int] | None = None,
    exact: bool = False,
    rate: float | None = None,
) -> Check:
    """Return the check of a film's result.

    Parameters
    ----------
    cast:
        Its people.
    scenes:
        Its frames, as a player displays them.
    swapped:
        Returns the indices of the faces of a frame that are swapped; the others stay.
    target:
        The film.
    looked:
        The frames whose faces are checked; None: the first, the middle and the last.
    exact:
        Whether pixels away from faces keep their mean, too; a watermark may move it.
    rate:
        As in `same_times`.
    """
    indices = sorted({0, len(scenes) // 2, len(scenes) - 1}) if looked is None else looked

    def check(outcome: Outcome) -> list[str]:
        found = same_times(target, outcome.out, rate)
        before, after = film(target), film(outcome.out)
        if len(before.frames) != len(scenes) or len(after.frames) != len(scenes):
            return [*found, f"{len(after.frames)} frames of {len(scenes)}"]
        for index in indices:
            faces, chosen = scenes[index].faces, set(swapped(index))
            frames = before.frames[index], after.frames[index]
            inside, outside = (
                [face for n, face in enumerate(faces) if (n in chosen) == is_in] for is_in in (True, False)
            )
            found += [f"frame {index + 1}: {each}" for each in cast.problems(*frames, inside, outside)]
            found += [f"frame {index + 1}: {each}" for each in film_away(*frames, faces, exact)]
        return found[:4]

    return check


def film_away(before: np.ndarray, after: np.ndarray, faces: Sequence[Face], exact: bool) -> list[str]:
    """Return problems if pixels away from faces differ by more than a codec and a watermark change them."""
    found = away_problems(before, after, faces, CODEC)
    mask = away(faces, before.shape)
    if found or not exact or not mask.any():
        return found
    bias = (after[mask].astype(float) - before[mask]).mean(axis=0)
    if np.abs(bias).max() <= BIAS:
        return []
    levels = ", ".join(f"{each:+.1f}" for each in bias)
    return [f"pixels away from the face are {levels} levels off in red, green, blue"]


def picture_check(cast: Cast, shown: Scene, swapped: Sequence[int], exact: bool = False) -> Check:
    """Return the check of a picture's result.

    Parameters
    ----------
    cast:
        Its people.
    shown:
        The picture, as a viewer displays it.
    swapped:
        The indices of the faces that are swapped; the others stay.
    exact:
        Whether pixels away from the faces stay to the bit, where there is no watermark.
    """
    inside, outside = (
        [face for n, face in enumerate(shown.faces) if (n in swapped) == is_in] for is_in in (True, False)
    )

    def check(outcome: Outcome) -> list[str]:
        after = picture(outcome.out)
        most = outcome.levels if exact else max(1.0, outcome.levels)
        found = cast.problems(shown.frame, after, inside, outside)
        return found + away_problems(shown.frame, after, shown.faces, most)

    return check
