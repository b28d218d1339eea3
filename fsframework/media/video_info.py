"""Properties of a video that are known before it is read."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

from fsframework.core.errors import UserError

COLOURS = ("color_range", "colorspace", "color_primaries", "color_trc")  # FFmpeg's names of `Video.colours`
PQ, HLG = 16, 18  # FFmpeg's numbers of the transfers of high dynamic range: SMPTE ST 2084, ARIB STD-B67


@dataclass(frozen=True)
class Video:
    """Properties of a video that are known before it is read."""

    path: Path
    width: int  # of the upright frame, in pixels
    height: int
    turns: int  # quarter turns, counter-clockwise, that make a stored frame upright after `mirrored`
    times: tuple[int, ...]  # of the frames, rising, in units of `base`
    base: Fraction  # seconds
    rate: Fraction  # frames a second, on average
    sound: int  # streams
    colours: tuple[int, ...]  # range, space, primaries and transfer, as FFmpeg numbers them
    start: Fraction = Fraction(0)  # of the container, in seconds: where players begin
    last: int = 0  # duration of the last frame, in units of `base`; 0: 1 / `rate`
    stream: int = 0  # index of the stream of pictures
    mirrored: bool = False  # whether left and right of a stored frame are exchanged
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel of the upright frame by its height
    marks: tuple[int | None, ...] | None = None  # the decoder's times of frames, where these have no other time
    pixel_format: str = "yuv420p"  # FFmpeg's name
    depth: int = 8  # bits per channel
    sampling: tuple[int, int] = (1, 1)  # base-2 logarithms of the width and height of an upright chroma sample
    is_rgb: bool = False
    field_order: Literal["", "top", "bottom"] = ""  # the field that is shown first; "": not interlaced
    mastering: tuple[Fraction, ...] = ()  # x, y of red, green, blue and white; least and most cd/m2 of the display
    light_level: tuple[int, ...] = ()  # of the brightest pixel and, on average, of the brightest frame, in cd/m2
    dynamic: tuple[str, ...] = ()  # high dynamic range by frame, in words
    captions: bool = False  # whether frames hold closed captions
    has_alpha: bool = False  # whether frames have a channel of transparency

    @property
    def is_hdr(self) -> bool:
        """Return whether the transfer is one of high dynamic range."""
        return self.colours[3] in (PQ, HLG)

    @property
    def keeps_samples(self) -> bool:
        """Return whether decoded frames are changed, because frames made of 8 bits of RGB lose some of them."""
        if self.is_rgb:
            return self.depth > 8
        is_odd = self.width % 2 or self.height % 2
        return bool(self.depth > 8 or self.sampling != (1, 1) or self.field_order or self.captions or is_odd)

    @property
    def seconds(self) -> float:
        """Return the duration from the first frame to the end of the last, in seconds."""
        return float((self.times[-1] - self.times[0]) * self.base + self.durations[-1] * self.base)

    @property
    def output_times(self) -> tuple[int, ...]:
        """Return the times of the frames in a result, which begins at 0, in units of `base`."""
        start = round(self.start / self.base)
        return tuple(time - start for time in self.times)

    @property
    def durations(self) -> tuple[int, ...]:
        """Return the durations of the frames, in units of `base`."""
        last = self.last or max(1, round(1 / (self.rate * self.base)))
        return (*(after - before for before, after in pairwise(self.times)), last)


def require_pyav(place: str) -> None:
    """Raise UserError, with a place, if PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError(f'{place}: videos need PyAV; try: pip install "fsframework[video]"') from None
