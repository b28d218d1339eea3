#!/usr/bin/env bash
# Guess: a packet's duration that is given to FFmpeg's MP4 writer is that of its frame when the file is read again, and
# the file lasts until the last frame ends.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2) on x86-64: MP4 keeps differences of decoding times only. Where frames have uneven
# durations and libx264 reorders them, the last frame that is shown is not the last one that is decoded, so its duration
# becomes that of another frame: a picture that rests for 1.5 s at the end of a loop of 2.05 s rests for 0.03 s. The
# same frames without B-frames keep it. Software that writes slides or moving pictures as MP4 should set bf to 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from fractions import Fraction

import av
import numpy as np

DURATIONS = [100, 40, 70, 30, 250, 60, 1500]  # milliseconds
TIMES = np.cumsum([0, *DURATIONS])[:-1].tolist()


def seconds(bframes):
    """Return the durations of the last frame and of the file, in seconds, as they are read again."""
    path = f"{sys.argv[1]}/{bframes}.mp4"
    smooth = np.add.outer(np.arange(240), np.arange(320)).astype(np.uint8)[..., None].repeat(3, axis=2)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(len(TIMES) * 1000, sum(DURATIONS)))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = bframes
        packets = []
        for number, time in enumerate(TIMES):
            frame = av.VideoFrame.from_ndarray(np.roll(smooth, number, 1), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            packets += stream.encode(frame)
        for packet in packets + stream.encode():
            packet.duration = DURATIONS[TIMES.index(packet.pts)]
            container.mux(packet)
    with av.open(path) as container:
        last = max((packet for packet in container.demux(video=0) if packet.size), key=lambda packet: packet.pts)
        return float(last.duration * last.time_base), container.duration / 1_000_000


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info, "written:", DURATIONS[-1] / 1000, sum(DURATIONS) / 1000)
found = {bframes: seconds(bframes) for bframes in (0, 1, 3)}
for bframes, (last, whole) in found.items():
    print(f"up to {bframes} B-frames: the last frame lasts {last:.3f} s, the file {whole:.3f} s")
assert found[0] == (1.5, 2.05), "without B-frames it is different now"
assert any(last < 1.5 or abs(whole - 2.05) > 0.005 for last, whole in (found[1], found[3])), "B-frames are harmless now"
PYTHON
