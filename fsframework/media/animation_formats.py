"""Write moving pictures frame by frame: GIF89a, animated WebP and APNG, with exact delays.

Pillow compresses each frame, and this module writes the containers: Pillow itself holds all frames in memory, merges
equal ones and rounds delays. Opaque frames hold only the rectangle that differs from the frame before.
"""

import io
import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image, PngImagePlugin

from fsframework.media.image_io import GIF_XMP, XMP

QUALITY = 95  # of lossy WebP
COLOURS = 256  # of a frame of GIF, of which the last one is transparent in animations with transparency
FACE_COLOURS = 24  # of these, at least, for pixels that were changed, if the frame's own colours are too many
LONGEST = 65535  # of 16 bits: units of a delay in GIF and APNG, plays
CHANGED = 12  # levels; less is the watermark
XMP_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\0"  # ends XMP in GIF (XMP Specification, part 3)


class AnimationFrame(NamedTuple):
    """A frame of a moving picture."""

    pixels: np.ndarray  # (H, W, 3 or 4) uint8
    before: np.ndarray  # (H, W, 3) uint8, without swapped faces
    delay: Fraction  # seconds


class AnimationInfo(Protocol):
    """Properties of an animation that the writers need."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def delays(self) -> tuple[Fraction, ...]: ...
    @property
    def plays(self) -> int: ...
    @property
    def is_transparent(self) -> bool: ...
    @property
    def is_lossless(self) -> bool: ...
    @property
    def profile(self) -> bytes | None: ...


Box = tuple[int, int, int, int]  # left, top, right, bottom


def _with_boxes(frames: Iterable[AnimationFrame], even: bool = False) -> Iterator[tuple[AnimationFrame, Box]]:
    """Yield frames with the box of pixels that differ from the frame before; `even`: with an even left and top."""
    before: np.ndarray | None = None
    for frame in frames:
        height, width = frame.pixels.shape[:2]
        box: Box = (0, 0, width, height)
        if before is not None:
            box = (0, 0, 1, 1)
            if before.shape != frame.pixels.shape:
                box = (0, 0, width, height)
            elif (differs := (before != frame.pixels).any(axis=2)).any():
                rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
                left, top = int(columns[0]), int(rows[0])
                box = (left - left % 2, top - top % 2) if even else (left, top)  # type: ignore[assignment]
                box = (*box[:2], int(columns[-1]) + 1, int(rows[-1]) + 1)
        before = frame.pixels
        yield frame, box


def _cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    left, top, right, bottom = box
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _ticks(frames: Iterable[tuple[AnimationFrame, Box]], unit: Fraction) -> Iterator[tuple[AnimationFrame, Box, int]]:
    """Yield frames with whole delays in a unit, whose sum is that of the exact delays, rounded."""
    end = Fraction(0)
    for frame, box in frames:
        begin, end = end, end + frame.delay
        yield frame, box, round(end / unit) - round(begin / unit)


def write_webp(file: BinaryIO, frames: Iterable[AnimationFrame], info: AnimationInfo) -> None:
    """Write animated WebP (RFC 9649)."""
    settings: dict[str, Any] = {"quality": QUALITY}
    if info.is_lossless:
        settings = {"lossless": True, "quality": 20, "method": 1}
    flags = 0x02 | 0x04 | (0x20 if info.profile else 0) | (0x10 if info.is_transparent else 0)
    file.write(b"RIFF\0\0\0\0WEBP")
    _chunk(file, b"VP8X", bytes([flags, 0, 0, 0]) + _three(info.width - 1) + _three(info.height - 1))
    if info.profile:
        _chunk(file, b"ICCP", info.profile)
    _chunk(file, b"ANIM", struct.pack("<IH", 0, min(info.plays, LONGEST)))
    for frame, box, delay in _ticks(_with_boxes(frames, even=True), Fraction(1, 1000)):
        buffer = io.BytesIO()
        Image.fromarray(_cut(frame.pixels, box)).save(buffer, "WEBP", exact=True, **settings)
        left, top, right, bottom = box
        place = b"".join(map(_three, (left // 2, top // 2, right - left - 1, bottom - top - 1, delay)))
        kept = [
            name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
            for name, data in _riff_chunks(buffer.getvalue())
            if name in (b"ALPH", b"VP8 ", b"VP8L")
        ]
        _chunk(file, b"ANMF", place + b"\x02" + b"".join(kept))  # the frame replaces its box
    _chunk(file, b"XMP ", XMP.encode())
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))


def _three(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _chunk(file: BinaryIO, name: bytes, data: bytes) -> None:
    file.write(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2))


def _riff_chunks(content: bytes, at: int = 12) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and contents of the chunks of a WebP file, or of a chunk of it, from an offset on."""
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        yield content[at : at + 4], content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def is_lossy_webp(content: bytes) -> bool:
    """Return whether the first frame of an animated WebP file is compressed with loss."""
    if content[8:12] != b"WEBP":
        return False
    frame = next((data for name, data in _riff_chunks(content) if name == b"ANMF"), b"")
    return any(name == b"VP8 " for name, _ in _riff_chunks(frame, 16))


def write_apng(file: BinaryIO, frames: Iterable[AnimationFrame], info: AnimationInfo) -> None:
    """Write APNG (PNG Specification, third edition)."""
    mode = "RGBA" if info.is_transparent else "RGB"
    number = 0
    for index, (frame, box) in enumerate(_with_boxes(frames)):
        buffer = io.BytesIO()
        Image.fromarray(_cut(frame.pixels, box)).convert(mode).save(buffer, "PNG", icc_profile=info.profile or None)
        chunks = list(_png_chunks(buffer.getvalue()))
        if index == 0:
            file.write(b"\x89PNG\r\n\x1a\n")
            PngImagePlugin.putchunk(file, b"IHDR", chunks[0][1])
            PngImagePlugin.putchunk(file, b"acTL", struct.pack(">II", len(info.delays), info.plays))
            for name, data in chunks:
                if name == b"iCCP":
                    PngImagePlugin.putchunk(file, name, data)
            PngImagePlugin.putchunk(file, b"iTXt", b"XML:com.adobe.xmp" + bytes(5), XMP.encode())
        left, top, right, bottom = box
        delay = frame.delay.limit_denominator(LONGEST if frame.delay <= 1 else max(1, int(LONGEST / frame.delay)))
        control = struct.pack(
            ">IIIIIHHBB", number, right - left, bottom - top, left, top, delay.numerator, delay.denominator, 0, 0
        )
        PngImagePlugin.putchunk(file, b"fcTL", control)
        number += 1
        for name, data in chunks:
            if name == b"IDAT" and index == 0:
                PngImagePlugin.putchunk(file, name, data)
            elif name == b"IDAT":
                PngImagePlugin.putchunk(file, b"fdAT", struct.pack(">I", number), data)
                number += 1
    PngImagePlugin.putchunk(file, b"IEND", b"")


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and contents of the chunks of a PNG file."""
    at = 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        at += 12 + size


def write_gif(file: BinaryIO, frames: Iterable[AnimationFrame], info: AnimationInfo) -> None:
    """Write GIF89a with a palette for each frame.

    Colours outside of swapped faces are those of the original as far as they fit. Transparent frames are whole and
    cleared afterwards; opaque ones stay.
    """
    file.write(b"GIF89a" + struct.pack("<HHBBB", info.width, info.height, 0, 0, 0))
    if info.plays != 1:
        file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", min(max(0, info.plays - 1), LONGEST), 0))
    file.write(GIF_XMP + XMP.encode() + XMP_TRAILER)
    for frame, changed, delay in _ticks(_with_boxes(frames), Fraction(1, 100)):
        box = (0, 0, info.width, info.height) if info.is_transparent else changed
        palette, indices = to_palette(_cut(frame.pixels, box), _cut(frame.before, box), COLOURS - info.is_transparent)
        flags = (2 if info.is_transparent else 1) << 2 | info.is_transparent  # disposal and transparency
        file.write(b"\x21\xf9\x04" + struct.pack("<BHBB", flags, min(delay, LONGEST), COLOURS - 1, 0))
        left, top, right, bottom = box
        file.write(b"\x2c" + struct.pack("<HHHHB", left, top, right - left, bottom - top, 0x87))  # 256 local colours
        table = np.zeros((256, 3), np.uint8)
        table[: len(palette)] = palette
        file.write(table.tobytes() + _lzw(indices))
    file.write(b"\x3b")


def to_palette(pixels: np.ndarray, before: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a palette (n, 3) uint8 of at most `count` colours, and the indices (H, W) uint8 of the nearest ones.

    Parameters
    ----------
    pixels:
        (H, W, 3 or 4) uint8. Less than half opaque pixels get the index `count`.
    before:
        (H, W, 3) uint8, the original, whose most frequent colours are kept exactly, if it has few.
    count:
        At most 256, or 255 with transparency.
    """
    rgb = pixels[..., :3]
    opaque = np.ones(rgb.shape[:2], bool) if pixels.shape[2] == 3 else pixels[..., 3] >= 128
    packed = rgb.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    colours, inverse = np.unique(packed[opaque], return_inverse=True)
    if len(colours) > count:
        changed = np.abs(rgb.astype(np.int16) - before).max(axis=2) > CHANGED
        kept = opaque & ~changed
        own, counts = np.unique(before.astype(np.int32)[kept] @ np.array([65536, 256, 1], np.int32), return_counts=True)
        palette = _median_cut(rgb[opaque], count)
        if len(own) <= COLOURS:  # the original has a palette
            room = count - FACE_COLOURS if changed[opaque].any() else count
            own = own[np.argsort(-counts, kind="stable")][:room]
            extra = count - len(own)
            rest = rgb[opaque & changed] if changed[opaque].any() else rgb[opaque]
            palette = np.concatenate([_unpacked(own), _median_cut(rest, extra)]) if extra else _unpacked(own)
        nearest = _nearest(_unpacked(colours), palette)
    else:
        palette, nearest = _unpacked(colours), np.arange(len(colours), dtype=np.uint8)
    indices = np.full(opaque.shape, min(count, 255), np.uint8)
    indices[opaque] = nearest[inverse]
    return palette, indices


def _unpacked(colours: np.ndarray) -> np.ndarray:
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)


def _median_cut(pixels: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` colours (n, 3) that represent pixels (n, 3) uint8."""
    image = Image.fromarray(np.ascontiguousarray(pixels[None]))
    palette = image.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).getpalette() or []
    return np.array(palette, np.uint8).reshape(-1, 3)[:count]


def _nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the index of the nearest entry of a palette (m, 3) for each colour (n, 3): (n,) uint8."""
    table = palette.astype(np.float32)
    offset = (table**2).sum(axis=1)
    parts = [
        (offset - 2 * colours[start : start + 65536].astype(np.float32) @ table.T).argmin(axis=1)
        for start in range(0, len(colours), 65536)
    ]
    return np.concatenate(parts).astype(np.uint8)


def _lzw(indices: np.ndarray) -> bytes:
    """Return the compressed data of a frame of GIF: Pillow compresses it as a file of its own."""
    image = Image.fromarray(indices)
    image.putpalette([level for level in range(256) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=False)
    content = buffer.getvalue()
    head = 13 + 3 * 256  # bytes: signature, screen and global palette
    while content[head] == 0x21:  # extensions: blocks of up to 255 bytes, and an empty one
        head += 2
        while content[head]:
            head += 1 + content[head]
        head += 1
    return content[head + 10 : -1]


WRITERS: dict[str, Callable[[BinaryIO, Iterable[AnimationFrame], AnimationInfo], None]] = {
    ".gif": write_gif,
    ".webp": write_webp,
    ".png": write_apng,
    ".apng": write_apng,
}
