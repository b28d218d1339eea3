"""Measure speed and quality of video swaps.

    python benchmarks/scripts/video_swap.py [SECONDS] [--model MODEL] [--save FILE]

The video shows a moving face, 640x480, 25 frames/s, with sound. `fsf swap` alternates with a loop that processes each
frame separately (detect, align, swap, paste, encode), both without provenance marks; the ratio is that of their times.
Then the video is swapped with all marks, and sound, timestamps, manifest and the watermark of each frame are verified.
A second video, a still picture with noise, measures the temporal stability: the mean change of the pasted face between
frames, relative to that of the input.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from synthetic_video import RATE, make_video, scene

from fsframework.data.samples import somebody
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.inference.video import painted, plan, swap_video
from fsframework.media.video_io import probe, read, write
from fsframework.models import store
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify
from fsframework.provenance.watermark import read as read_watermark
from fsframework.utils.environment import environment
from fsframework.utils.files import write_text

SIZE = (640, 480)
ROUNDS = 3
PLAIN = ProvenanceOptions(provenance=False)


def large(number: int) -> np.ndarray:
    """Return frame `number` (480, 640, 3) uint8 of the video."""
    return cv2.resize(scene(number), SIZE, interpolation=cv2.INTER_CUBIC)


def one_by_one(converter: FaceSwapper, source: SourceIdentity, film: Path, out: Path) -> None:
    """Swap every frame separately."""
    video = probe(film)
    write(out, video, (converter.swap_into(source, frame, "frame") for frame in read(video)))


def packets(file: Path) -> list[bytes]:
    """Return the packets of a video's sound."""
    with av.open(str(file)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def steadiness(converter: FaceSwapper, source: SourceIdentity, folder: Path) -> float:
    """Return the mean change of the pasted region between frames, relative to that of the still video."""
    rng = np.random.default_rng(0)
    still = large(0).astype(float)
    frames = [np.clip(still + rng.normal(0, 5, still.shape), 0, 255).astype(np.uint8) for _ in range(4 * RATE)]
    video = probe(make_video(folder / "still.mp4", frames, sound=False))
    tracks, sources = plan(converter, FaceAssignment("largest", source), video, None)
    before = np.stack(list(read(video)))
    after = np.stack(list(painted(converter, video, tracks, sources, 0, len(frames))))
    inside = (before != after).any(axis=(0, 3))
    steps = [
        np.abs(np.diff(video_frames.astype(np.int16), axis=0)).mean(axis=(0, 3))[inside].mean()
        for video_frames in (after, before)
    ]
    return float(steps[0] / steps[1])


def measure(seconds: int, model: str, folder: Path) -> dict[str, Any]:
    """Return all figures."""
    converter = FaceSwapper(model, "cpu")
    source = converter.source(somebody(), "source")
    video_file = make_video(folder / "film.mp4", [large(number) for number in range(seconds * RATE)])
    assignment, count = FaceAssignment("largest", source), seconds * RATE
    times: dict[str, list[float]] = {"fsf swap": [], "frame by frame": []}
    for turn in range(ROUNDS):
        start = time.perf_counter()
        swap_video(converter, assignment, video_file, folder / f"ours{turn}.mp4", {"turn": turn}, PLAIN)
        between = time.perf_counter()
        one_by_one(converter, source, video_file, folder / f"plain{turn}.mp4")
        times["fsf swap"].append(between - start)
        times["frame by frame"].append(time.perf_counter() - between)
    start = time.perf_counter()
    swap_video(converter, assignment, video_file, folder / "marked.mp4", {}, ProvenanceOptions())
    marked = time.perf_counter() - start
    report = verify(folder / "marked.mp4")
    frames = list(read(probe(folder / "marked.mp4")))
    payload = None if report.watermark is None else report.watermark.payload
    readings = [read_watermark(frame) for frame in frames]
    return {
        "frames": count,
        "frames_per_second": {name: count / float(np.median(values)) for name, values in times.items()},
        "ratio": float(np.median(np.array(times["frame by frame"]) / np.array(times["fsf swap"]))),
        "frames_per_second_marked": count / marked,
        "sound_equal": packets(video_file) == packets(folder / "marked.mp4"),
        "times_equal": probe(video_file).times == probe(folder / "marked.mp4").times,
        "verdict": report.verdict,
        "watermark_share": float(np.mean([r is not None and f"{r.payload:08x}" == payload for r in readings])),
        "steadiness": steadiness(converter, source, folder),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int, nargs="?", default=10)
    parser.add_argument("--model", default=store.DEFAULT, help="Model, as for fsf swap.")
    parser.add_argument("--save", type=Path, help="Write JSON to a file, too.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(options.seconds, options.model, Path(place))
    command = f"python benchmarks/scripts/video_swap.py {options.seconds} --model {options.model}"
    text = json.dumps({"command": command, **found, "manifest": environment(torch.device("cpu"))}, indent=2)
    print(text)
    if options.save is not None:
        write_text(options.save, text + "\n")
