"""Synthetic videos of a moving portrait, for tests and benchmarks. Needs PyAV."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import skimage.data

from fsframework.data.samples import portrait

SIZE = (320, 240)  # width and height, in pixels
RATE = 25  # frames/s


def scene(number: int, two: bool = False, picture: np.ndarray | None = None) -> np.ndarray:
    """Return frame `number` (240, 320, 3) uint8 of the moving portrait; `two` adds its mirror image.

    `picture` replaces the portrait, at the same size.
    """
    head = (portrait() if picture is None else picture)[:260, 90:350]
    t = number / RATE
    frame: np.ndarray = cv2.resize(skimage.data.chelsea(), SIZE)
    for place, shown in enumerate([head, head[:, ::-1]][: 1 + two]):
        matrix = cv2.getRotationMatrix2D((130, 130), 8 * np.sin(2 * t), 0.6 + 0.1 * np.sin(3 * t))
        matrix[:, 2] += [
            (60 if two else 160) + 160 * place - 130 + 25 * np.sin(2.5 * t),
            120 - 130 + 10 * np.cos(2 * t),
        ]
        inside = cv2.warpAffine(np.ones(shown.shape[:2], np.float32), matrix, SIZE) > 0.5
        frame = np.where(inside[..., None], cv2.warpAffine(shown, matrix, SIZE), frame)
    return frame.astype(np.uint8)


def make_video(file: Path, frames: list[np.ndarray], times: list[int] | None = None, sound: bool = True) -> Path:
    """Write frames (H, W, 3) uint8, at RATE or at times in milliseconds, optionally with a tone; return the path."""
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        tone: Any = container.add_stream("aac", rate=44100, layout="mono") if sound else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, RATE) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            wave = (8000 * np.sin(np.arange(len(frames) * 44100 // RATE) / 16)).astype(np.int16)
            for start in range(0, len(wave), 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
                piece.sample_rate, piece.pts = 44100, start
                container.mux(tone.encode(piece))
            container.mux(tone.encode())
    return file


def after_h264(frames: list[np.ndarray], crf: int) -> list[np.ndarray]:
    """Return frames (H, W, 3) uint8 after encoding as H.264 with a CRF of 0 (best) to 51, and decoding."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": str(crf)})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as coded:
        return [frame.to_ndarray(format="rgb24") for frame in coded.decode(video=0)]
