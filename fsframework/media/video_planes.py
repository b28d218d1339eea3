"""Change the pixels of a decoded video frame in its own pixel format.

The networks see 8 bits of RGB. A frame of more bits, of finer chroma or of two fields keeps its samples: only the
difference that a swap makes is added to them, so that unchanged pixels stay exactly as they were.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np

from fsframework.media.video_info import PQ

BICUBIC = 0x4 | 0x2000 | 0x4000 | 0x40000  # FFmpeg's flags: full chroma in and out, accurate rounding
NEAREST = 0x10 | 0x2000 | 0x40000  # nearest chroma, at full width, accurate rounding
LIMITED, FULL = 1, 2  # FFmpeg's numbers of colour ranges
WEIGHTS = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
BT601 = (0.299, 0.114)  # weights of red and blue in the other colour spaces
SMALL, LARGE = 8, 32  # levels of 8 bits: changes from which a result's own value replaces the sum, partly and wholly
WHITE = 203.0  # cd/m2: diffuse white of high dynamic range (ITU-R BT.2408)
KNEE = 0.8  # of diffuse white: darker light is shown in proportion
PEAK = 10_000.0  # cd/m2, the most that SMPTE ST 2084 encodes


def rgb_to_yuv(colour_space: int) -> np.ndarray:
    """Return the matrix (3, 3) from RGB to luma in 0..1 and chroma in -0.5..0.5; `colour_space` is FFmpeg's number."""
    red, blue = WEIGHTS.get(colour_space, BT601)
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)])


def repaint(
    frame: Any,
    pixel_format: str,
    before: np.ndarray,
    after: np.ndarray,
    turns: int = 0,
    mirrored: bool = False,
    colour_space: int = 1,
    colour_range: int = LIMITED,
) -> Any:
    """Return a decoded frame in a planar format, upright, with the change from `before` to `after`.

    Parameters
    ----------
    frame:
        The frame of PyAV, which may be changed.
    pixel_format:
        FFmpeg's name: yuv420p, yuv422p or yuv444p, maybe with 10le.
    before, after:
        (H, W, 3) uint8, upright: the visible frame, and the same after a swap.
    turns, mirrored:
        As of `video_io.upright`.
    colour_space, colour_range:
        FFmpeg's numbers, of the result.
    """
    is_high_range = frame.color_trc == PQ
    if frame.format.name == pixel_format and not turns and not mirrored:
        frame.make_writable()
        upright = frame
    else:
        planar = planar_frame(frame, pixel_format, colour_space, colour_range)
        upright = _turned(planar, turns, mirrored) if turns or mirrored else planar
    upright.pict_type = 0  # or encoders repeat the target's choice of key frames
    _add_change(_samples(upright), before, after, pixel_format, colour_space, colour_range, is_high_range)
    return upright


def planar_frame(frame: Any, pixel_format: str, colour_space: int, colour_range: int) -> Any:
    """Return a frame of PyAV in another pixel format."""
    ranges: dict[str, Any] = {"src_color_range": colour_range or LIMITED, "dst_color_range": colour_range or LIMITED}
    if frame.format.is_rgb:
        ranges = {"dst_colorspace": colour_space, "dst_color_range": colour_range or LIMITED}
    return without_siting(frame).reformat(format=pixel_format, interpolation=BICUBIC, **ranges)


def without_siting(frame: Any) -> Any:
    """Return a frame of PyAV without the place of its chroma samples.

    FFmpeg's converter heeds this place when it reads, and PyAV cannot state it when a frame is written: chroma would
    move by a quarter of a pixel each time.
    """
    import av

    if frame.format.chroma_width(4) == 4 and frame.format.chroma_height(4) == 4:
        return frame
    copy = av.VideoFrame(frame.width, frame.height, frame.format.name)
    for into, plane in zip(copy.planes, frame.planes, strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        target = np.frombuffer(memoryview(into), np.uint8).reshape(-1, into.line_size)
        width = min(plane.line_size, into.line_size)
        target[: len(rows), :width] = rows[: len(target), :width]
    copy.color_range, copy.colorspace = frame.color_range, frame.colorspace
    return copy


def _samples(frame: Any) -> list[np.ndarray]:
    """Return writable views (h, w) of the planes of a planar frame."""
    kind = np.dtype("<u2" if frame.format.components[0].bits > 8 else np.uint8)
    return [
        np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes
    ]


def _turned(frame: Any, turns: int, mirrored: bool) -> Any:
    """Return a frame mirrored, then rotated by quarter turns, counter-clockwise; chroma samples must be square."""
    import av

    size = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    upright = av.VideoFrame(*size, frame.format.name)
    for into, samples in zip(_samples(upright), _samples(frame), strict=True):
        into[:] = np.rot90(samples[:, ::-1] if mirrored else samples, turns)
    upright.color_range, upright.colorspace = frame.color_range, frame.colorspace
    return upright


def _add_change(
    planes: list[np.ndarray],
    before: np.ndarray,
    after: np.ndarray,
    pixel_format: str,
    colour_space: int,
    colour_range: int,
    is_high_range: bool,
) -> None:
    """Add the change from `before` to `after` (H, W, 3) uint8 to planes of samples, in place.

    RGB of 8 bits does not hold all that YUV does, such as light above white. What a large change replaces keeps no such
    excess.
    """
    changed = (before != after).any(axis=2)
    if not changed.any():
        return
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]) & ~1, int(columns[0]) & ~1
    box = (slice(top, (int(rows[-1]) | 1) + 1), slice(left, (int(columns[-1]) | 1) + 1))
    old, new = before[box], after[box]
    difference = cv2.absdiff(old, new).max(axis=2).astype(np.float32)
    weight = np.clip((difference - SMALL) / (LARGE - SMALL), 0, 1)
    depth = 10 if planes[0].dtype != np.uint8 else 8
    unit, most = 2.0 ** (depth - 8), 2**depth - 1
    is_full = colour_range == FULL
    scales = np.array([[most], [most], [most]] if is_full else [[219 * unit], [224 * unit], [224 * unit]])
    matrix = rgb_to_yuv(colour_space) * scales / 255
    offsets = np.array([[0 if is_full else 16 * unit], [128 * unit], [128 * unit]])
    matrix = np.hstack([matrix, offsets])
    if is_high_range:
        old, new = (cv2.LUT(each, encoded_light()) for each in (old, new))
    yuv_old, yuv_new = (cv2.transform(each.astype(np.float32), matrix) for each in (old, new))
    for index, plane in enumerate(planes):
        across, down = ((before.shape[1 - axis] // plane.shape[1 - axis] > 1) for axis in (0, 1))
        part = plane[box[0].start >> down : -(-box[0].stop >> down), box[1].start >> across : -(-box[1].stop >> across)]
        size = (part.shape[1], part.shape[0])
        values: list[Any] = [cv2.extractChannel(yuv_old, index), cv2.extractChannel(yuv_new, index), weight]
        if across or down:
            values = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in values]
        was, becomes, share = values
        native = part.astype(np.float32)
        gap = native - was
        excess = gap - np.clip(gap, -2 * unit, 2 * unit)
        part[:] = np.clip(np.rint(native + becomes - was - share * excess), 0, most)


@cache
def visible_light() -> np.ndarray:
    """Return the table (65536,) uint8 from codes of SMPTE ST 2084 to sRGB, in which networks see faces.

    Light brighter than KNEE is compressed, so that none is lost.
    """
    codes = np.arange(65536) / 65535
    table: np.ndarray = np.rint(255 * _shown(_light_of(codes))).astype(np.uint8)
    return table


@cache
def encoded_light() -> np.ndarray:
    """Return the table (256,) float32 from sRGB of `visible_light` back to codes of SMPTE ST 2084, in 0..255."""
    codes = np.linspace(0, 1, 65536)
    return np.interp(np.arange(256) / 255, _shown(_light_of(codes)), codes * 255).astype(np.float32)


def _light_of(codes: np.ndarray) -> np.ndarray:
    """Return the light of codes in 0..1 by SMPTE ST 2084, in units of diffuse white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = np.power(codes, 1 / m2)
    light: np.ndarray = PEAK / WHITE * np.power(np.maximum(power - c1, 0) / (c2 - c3 * power), 1 / m1)
    return light


def _shown(light: np.ndarray) -> np.ndarray:
    """Return sRGB in 0..1 for light in units of diffuse white: in proportion up to KNEE, above by its logarithm."""
    bright = KNEE + (1 - KNEE) * np.log(np.maximum(light, KNEE) / KNEE) / np.log(PEAK / WHITE / KNEE)
    linear = np.where(light < KNEE, light, bright)
    gamma = 1.055 * np.power(np.maximum(linear, 1e-9), 1 / 2.4) - 0.055
    return np.asarray(np.where(linear < 0.0031308, 12.92 * linear, gamma))
