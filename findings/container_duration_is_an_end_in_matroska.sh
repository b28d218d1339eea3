#!/usr/bin/env bash
# Guess: `container.duration` of PyAV is how long a film lasts, whatever its format; its end is `start_time +
# duration`.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): for two seconds of film that start at 10 s, it is 2 s in MP4, .mov and
# MPEG-TS, and 12 s in Matroska and WebM, where `start_time` is 10 s all the same. There it is the time of the end,
# counted from 0, and their sum, 22 s, lies ten seconds behind the last frame. So remuxing a section without a change
# of times makes a film "longer", and sampling frames evenly over the duration looks mostly at times before the
# first. `start_time + duration` is right in the one, `duration` in the other; the times of packets are right in all.
# `stream.duration` is None in Matroska.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av

FIRST, FRAMES = 250, 50
print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
found = {}
for form in ("mp4", "mov", "mpegts", "matroska", "webm"):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("libvpx-vp9" if form == "webm" else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts = FIRST + number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        start, length = container.start_time / av.time_base, container.duration / av.time_base
        track = container.streams.video[0].duration
        times = [frame.time for frame in container.decode(video=0)]
    found[form] = length
    print(f"{form}: frames from {times[0]} to {times[-1]} s; start_time {start} s, duration {length} s, stream.duration {track}")
    assert len(times) == FRAMES and times[0] == start == 10 and times[-1] == 11.96
    assert (track is None) == (form in ("matroska", "webm"))
assert found["mp4"] == found["mov"] == found["mpegts"] == 2, "the start is included now"
assert found["matroska"] == found["webm"] == 12, "the start is excluded now"
PYTHON
