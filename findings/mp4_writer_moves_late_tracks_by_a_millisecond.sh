#!/usr/bin/env bash
# Guess: a film in MP4 whose track counts in 1/90000 s has the frame times that were written, to the tick.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): only if it starts at a whole millisecond. The start goes into an edit list,
# which counts in the movie's timescale, 1000 a second whatever the tracks have, and is cut to whole units. So a 30
# fps film from its second frame on (tick 3000) reads back from 2970, all its frames 30 ticks early, and times looked
# up exactly are missed. Distances between frames stay. Matroska, which counts in milliseconds, rounds instead. With
# the writer's option movie_timescale=90000 each time is exact, in MP4 and .mov.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
from fractions import Fraction

import av

TICK = Fraction(1, 90000)
STARTS = (0, 132, 1501, 3000, 9000, 90001)


def shifts(form, start, **options):
    """Return by how many ticks each frame is late when read."""
    file = io.BytesIO()
    with av.open(file, "w", format=form, options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.time_base = 64, 64, "yuv420p", TICK
        for number in range(5):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts, frame.time_base = start + 3000 * number, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        assert form == "matroska" or stream.time_base == TICK
        times = [frame.pts * stream.time_base / TICK for frame in container.decode(stream)]
    return [int(time) - start - 3000 * number for number, time in enumerate(times)]


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
for form in ("mp4", "mov"):
    for start in STARTS:
        plain, fine = shifts(form, start), shifts(form, start, movie_timescale="90000")
        print(f"{form}, start {start}: late by {plain} ticks; movie_timescale=90000: {fine}")
        assert plain == [-(start % 90)] * 5, "starts are kept, or rounded, now"
        assert fine == [0] * 5
late = shifts("matroska", 1501)
print(f"matroska, start 1501: late by {late} ticks")
assert any(late) and all(abs(shift) <= 45 for shift in late)
PYTHON
