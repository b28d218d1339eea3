"""What swapping a video costs, and how it comes out: python benchmarks/scripts/video_swap.py [SECONDS] [--save FILE]

A film of a moving face with sound is made, 640x480, 25 frames a second. `fsf swap` and a loop over the same frames that
does the same to each by itself (find, align, swap, paste, encode; no mark in either) take turns on it; the ratio is
that of their times. Then the film is swapped with all marks, and looked at: sound, times, manifest, watermark in each
frame. A second film of one still picture with noise shows how steady the pasted face is: its mean change from frame to
frame, in units of the film's own.
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
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify
from fsframework.provenance.watermark import read as read_watermark
from fsframework.utils.environment import environment
from fsframework.utils.files import write_text

SIZE = (640, 480)
ROUNDS = 3
PLAIN = ProvenanceOptions(provenance=False)


def large(number: int) -> np.ndarray:
    """A frame of the film."""
    return cv2.resize(scene(number), SIZE, interpolation=cv2.INTER_CUBIC)


def one_by_one(converter: FaceSwapper, source: SourceIdentity, film: Path, out: Path) -> None:
    """Every frame by itself."""
    video = probe(film)
    write(out, video, (converter.swap_into(source, frame, "frame") for frame in read(video)))


def packets(file: Path) -> list[bytes]:
    """The sound of a film."""
    with av.open(str(file)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def steadiness(converter: FaceSwapper, source: SourceIdentity, folder: Path) -> float:
    """Mean change of the pasted region from frame to frame, in units of the still film's own."""
    rng = np.random.default_rng(0)
    still = large(0).astype(float)
    frames = [np.clip(still + rng.normal(0, 5, still.shape), 0, 255).astype(np.uint8) for _ in range(4 * RATE)]
    video = probe(make_video(folder / "still.mp4", frames, sound=False))
    tracks, sources = plan(converter, FaceAssignment("largest", source), video, None)
    before = np.stack(list(read(video)))
    after = np.stack(list(painted(converter, video, tracks, sources, 0, len(frames))))
    inside = (before != after).any(axis=(0, 3))
    steps = [
        np.abs(np.diff(each.astype(np.int16), axis=0)).mean(axis=(0, 3))[inside].mean() for each in (after, before)
    ]
    return float(steps[0] / steps[1])


def measure(seconds: int, folder: Path) -> dict[str, Any]:
    """All figures."""
    converter = FaceSwapper(device="cpu")
    source = converter.source(somebody(), "source")
    film = make_video(folder / "film.mp4", [large(number) for number in range(seconds * RATE)])
    who, count = FaceAssignment("largest", source), seconds * RATE
    times: dict[str, list[float]] = {"fsf swap": [], "frame by frame": []}
    for turn in range(ROUNDS):
        start = time.perf_counter()
        swap_video(converter, who, film, folder / f"ours{turn}.mp4", {"turn": turn}, PLAIN)
        between = time.perf_counter()
        one_by_one(converter, source, film, folder / f"plain{turn}.mp4")
        times["fsf swap"].append(between - start)
        times["frame by frame"].append(time.perf_counter() - between)
    start = time.perf_counter()
    swap_video(converter, who, film, folder / "marked.mp4", {}, ProvenanceOptions())
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
        "sound_equal": packets(film) == packets(folder / "marked.mp4"),
        "times_equal": probe(film).times == probe(folder / "marked.mp4").times,
        "verdict": report.verdict,
        "watermark_share": float(np.mean([r is not None and f"{r.payload:08x}" == payload for r in readings])),
        "steadiness": steadiness(converter, source, folder),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int, nargs="?", default=10)
    parser.add_argument("--save", type=Path, help="Write JSON to a file, too.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(options.seconds, Path(place))
    command = f"python benchmarks/scripts/video_swap.py {options.seconds}"
    text = json.dumps({"command": command, **found, "manifest": environment(torch.device("cpu"))}, indent=2)
    print(text)
    if options.save is not None:
        write_text(options.save, text + "\n")
