"""An invisible mark in a picture's pixels: 32 bits, kept by compression, and found without the original.

In the manner of DWT-DCT-SVD watermarks (Navas et al., 2008), which quantise a low-frequency quantity of small blocks
of the luminance. Here it is one coefficient of the DCT of 8x8 pixels, horizontal and vertical in turn, instead of a
singular value of the wavelet's low band: it is linear, so a whole picture is marked in a few milliseconds, and its
error is known. The quantiser is dithered (quantisation index modulation; Chen and Wornell, 2001): coefficients go to
the nearest of the points (n + dither + bit/2) STEP. Each 8x8 group of blocks holds each of 64 bits once: the payload
and its CRC-32. Dithers repeat every 32 blocks, so the mark is found in what is cut out of a picture, too.

No coefficient moves by more than STEP/2, so the PSNR is above 40 dB in every picture; it is about 45 dB.
"""

import hashlib
import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

BLOCK = 8  # pixels
TILE = 32  # blocks after which the pattern repeats
BITS = 64  # of payload and check
STEP = 40.0  # between two points that mean the same bit
SMALLEST = 96  # pixels of a side; smaller pictures do not hold every bit often enough
LEAST = 80.0  # evidence below which nothing was read; without a mark it is about 64, and above 80 once in 12
ENOUGH = 1024  # pixels of a side that a search looks at
DOUBTFUL = 16  # least certain bits, of which up to WRONG are turned round until the check agrees
WRONG = 4

_PLACES = (np.arange(BLOCK) + 0.5) * np.pi / BLOCK
_FLAT = np.full(BLOCK, 1 / np.sqrt(BLOCK), np.float32)  # the first and the second row of the orthonormal DCT
_SLOPE = (np.cos(_PLACES) * np.sqrt(2 / BLOCK)).astype(np.float32)

_ROW, _COLUMN = np.mgrid[:TILE, :TILE]
_KIND = (_ROW + _COLUMN) % 2  # 0: the slope of a block is horizontal, 1: vertical
_BIT = (_ROW + 5 * (_COLUMN // 8)) % 8 + 8 * ((_COLUMN + 3 * (_ROW // 8)) % 8)  # which bit
_DITHER = (
    np.array(  # in [0, 1); fixed for ever, whatever library or version
        [int.from_bytes(hashlib.sha256(b"fsframework watermark 1 %d" % n).digest()[:4], "big") for n in range(TILE**2)]
    ).reshape(TILE, TILE)
    / float(2**32)
)


@dataclass(frozen=True)
class Reading:
    """What a picture's watermark says.

    `strength` is how well the coefficients lie at their points: 1 in a picture just marked, 0 without a mark.
    """

    payload: int
    strength: float


def embed(image: np.ndarray, payload: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB with a payload of 32 bits; all three channels change alike.

    Pictures with a side below SMALLEST pixels are marked as far as they go, and cannot be read.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    bits, marked = _encode(payload), image.copy()
    for top in range(0, len(image), BLOCK * TILE):  # in strips, which fit into the processor's cache
        _mark(marked[top : top + BLOCK * TILE], bits)
    return marked


def _mark(strip: np.ndarray, bits: np.ndarray) -> None:
    """Mark what begins where the pattern begins, in place."""
    found = _coefficients(strip, _KIND)  # (R, C)
    if not found.size:
        return
    rows, columns = found.shape
    goal = (_repeated(_DITHER, rows, columns) + 0.5 * _repeated(bits[_BIT], rows, columns)) * STEP
    change = np.rint((found - goal) / STEP) * STEP + goal - found
    change = (change / np.sqrt(BLOCK)).astype(np.float32)
    vertical = _repeated(_KIND, rows, columns).astype(np.float32)
    across = (change * (1 - vertical))[:, None, :, None] * _SLOPE  # (R, 1, C, 8)
    down = (change * vertical)[:, None, :, None] * _SLOPE[:, None, None]  # (R, 8, C, 1)
    levels = cv2.merge([np.rint(across + down).astype(np.int16).reshape(rows * BLOCK, columns * BLOCK)] * 3)
    whole = strip[: rows * BLOCK, : columns * BLOCK]
    whole[:] = cv2.add(whole, levels, dtype=cv2.CV_8U)  # saturates


def read(image: np.ndarray, search: bool = False) -> Reading | None:
    """The watermark of a picture (H, W, 3) uint8 RGB, or None.

    Without a mark something is read about once in 10^7 pictures, and once in 10^6 where `search` looks, too: about 2500
    ways to read the doubtful bits are tried, and a check of 32 bits must agree with one.

    Parameters
    ----------
    search:
        If nothing is found, look for the mark in a picture that was cut out of the marked one; this takes
        up to half a second.
    """
    found = _decode([_vote(image)])
    if found is None and search and min(image.shape[:2]) >= SMALLEST:
        found = _decode([_vote(image, *_place(image))])
    return found


def read_together(frames: Sequence[np.ndarray]) -> Reading | None:
    """The watermark that frames (H, W, 3) uint8 of one video share, or None.

    It is read where each frame alone is too damaged, and where one alone is not.
    """
    votes = [_vote(frame) for frame in frames]
    tried = (_decode(each) for each in [votes, *([vote] for vote in votes)])
    return next((found for found in tried if found is not None), None)


def _vote(image: np.ndarray, row: int = 0, column: int = 0) -> np.ndarray:
    """For each bit the sum of its blocks' votes, above 0 if it is 0, and their number: (2, 64).

    The pixel (row, column), below BLOCK * TILE each, is the corner of the pattern.
    """
    top, left = row % BLOCK, column % BLOCK
    dither, bit, kind = (np.roll(each, (row // BLOCK, column // BLOCK), (0, 1)) for each in (_DITHER, _BIT, _KIND))
    found = _coefficients(image[top:, left:], kind)
    rows, columns = found.shape
    if min(rows, columns) * BLOCK < SMALLEST:
        return np.zeros((2, BITS))
    dither, bit = (_repeated(each, rows, columns) for each in (dither, bit))
    phase = np.exp(2j * np.pi / STEP * found)
    phase -= phase.mean()  # what plain areas have in common, and dither takes away from marked ones
    votes = (phase * np.exp(-2j * np.pi * dither)).real
    return np.stack([np.bincount(bit.ravel(), votes.ravel(), BITS), np.bincount(bit.ravel(), minlength=BITS)])


def _decode(votes: Sequence[np.ndarray]) -> Reading | None:
    """What the votes of one picture or several (2, 64) say, if they say enough."""
    total, count = np.sum(votes, axis=0) if votes else np.zeros((2, BITS))
    if not count.all():
        return None
    # Of one picture without a mark it is distributed as chi-squared. Several are taken to be all alike, the worst case.
    evidence = float((total**2 / (count / 2)).sum()) / len(votes)
    payload = _corrected(total / np.sqrt(count)) if evidence >= LEAST else None
    return None if payload is None else Reading(payload, float(np.abs(total).sum() / count.sum()))


def _coefficients(image: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """The coefficient that `kind`, a tile, names, of each whole block of a picture (H, W, 3): (H // 8, W // 8)."""
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    if not rows or not columns:
        return np.zeros((rows, columns), np.float32)
    luma = cv2.cvtColor(np.ascontiguousarray(image[: rows * BLOCK, : columns * BLOCK]), cv2.COLOR_RGB2GRAY)
    strips = luma.astype(np.float32).reshape(rows, BLOCK, columns * BLOCK)
    flat, slope = (weights @ strips for weights in (_FLAT, _SLOPE))  # (R, 8 C)
    horizontal = flat.reshape(rows, columns, BLOCK) @ _SLOPE
    vertical = slope.reshape(rows, columns, BLOCK) @ _FLAT
    chosen: np.ndarray = np.where(_repeated(kind, rows, columns) == 0, horizontal, vertical)
    return chosen


def _repeated(tile: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return tile[np.arange(rows)[:, None] % TILE, np.arange(columns) % TILE]


def _encode(payload: int) -> np.ndarray:
    if not 0 <= payload < 2**32:
        raise ValueError(f"expected 32 bits, got {payload}")
    data = payload.to_bytes(4, "big")
    return np.unpackbits(np.frombuffer(data + zlib.crc32(data).to_bytes(4, "big"), np.uint8))


def _corrected(votes: np.ndarray) -> int | None:
    """The payload that the votes (64,) mean, or None if the check agrees with no way to read the doubtful ones."""
    bits = (votes < 0).astype(np.uint8)
    doubtful = np.argsort(np.abs(votes))[:DOUBTFUL]
    for wrong in range(WRONG + 1):
        for turned in itertools.combinations(doubtful, wrong):
            tried = bits.copy()
            tried[list(turned)] ^= 1
            word = np.packbits(tried).tobytes()
            if zlib.crc32(word[:4]) == int.from_bytes(word[4:], "big"):
                return int.from_bytes(word[:4], "big")
    return None


def _place(image: np.ndarray) -> tuple[int, int]:
    """Where the pattern most probably begins: the row and the column of a pixel, below BLOCK * TILE each.

    The phases of the coefficients at every pixel are added up over the pattern's repetitions, and compared with the
    pattern at all places at once. Of large pictures the middle is enough.
    """
    top, left = (max(0, (length - ENOUGH) // 2) for length in image.shape[:2])
    middle = np.ascontiguousarray(image[top : top + ENOUGH, left : left + ENOUGH])
    luma = cv2.cvtColor(middle, cv2.COLOR_RGB2GRAY).astype(np.float32)
    side = BLOCK * TILE
    evidence = np.zeros((BLOCK, BLOCK, BITS, TILE, TILE), np.complex64)
    patterns = np.zeros((2, BITS, TILE, TILE), np.complex64)  # by kind of block and bit
    patterns[_KIND, _BIT, _ROW, _COLUMN] = np.exp(2j * np.pi * _DITHER)
    for kind, (across, down) in enumerate([(_SLOPE, _FLAT), (_FLAT, _SLOPE)]):
        # Each pixel as the corner of a block.
        there = cv2.sepFilter2D(luma, cv2.CV_32F, across, down, anchor=(0, 0))[: 1 - BLOCK, : 1 - BLOCK]
        phase = np.exp(np.complex64(2j * np.pi / STEP) * there)
        phase -= phase.mean()
        heights, widths = (-(-length // side) * side for length in phase.shape)
        padded = np.zeros((heights, widths), np.complex64)
        padded[: phase.shape[0], : phase.shape[1]] = phase
        summed = padded.reshape(heights // side, side, widths // side, side).sum(axis=(0, 2))
        tiles = summed.reshape(TILE, BLOCK, TILE, BLOCK).transpose(1, 3, 0, 2)  # (8, 8, 32, 32), by corner in a block
        evidence += np.fft.fft2(tiles)[:, :, None] * np.fft.fft2(patterns[kind]).conj()
    score = (np.fft.ifft2(evidence).real ** 2).sum(axis=2)  # (8, 8, 32, 32)
    row, column, block_row, block_column = np.unravel_index(int(score.argmax()), score.shape)
    return int(top + row + BLOCK * block_row) % side, int(left + column + BLOCK * block_column) % side
