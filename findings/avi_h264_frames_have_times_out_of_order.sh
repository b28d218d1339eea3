#!/usr/bin/env bash
# Guess: decoded frames of PyAV have presentation times, so that they rise from frame to frame, and sorting frames by
# `pts` or looking them up by `frame.time` gives the order in which they are shown.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): H.264 with B-frames in AVI, written and read by PyAV without an error,
# decodes in the right order, and with unique, complete times, but these follow the order of coding: the first frames
# shown have pts 1, 3, 4, 2. Sorted by it, the frames come as 1, 4, 2, 3, 7, 5, 6. AVI stores no times, and the
# reader numbers the packets as they come. MPEG-4 in AVI and H.264 in MP4 have right times. For AVI, count frames as
# the decoder yields them; `dts` rises where it is given, but the last frames have none. Code that pairs frames by
# time (swaps, labels, subtitles) gets others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np

print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
orders = {}
for form, codec in (("avi", "libx264"), ("avi", "mpeg4"), ("mp4", "libx264")):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        options = {"bf": "2", "x264-params": "b-adapt=0:scenecut=0"} if codec == "libx264" else {"bf": "2", "b_strategy": "0"}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + 18 * number, np.uint8), "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        frames = list(container.decode(video=0))
    shown = [round((float(frame.to_ndarray(format="gray").mean()) - 20) / 18) + 1 for frame in frames]
    times, types = [frame.pts for frame in frames], "".join(av.video.frame.PictureType(frame.pict_type).name for frame in frames)
    orders[form, codec] = [number for _, number in sorted(zip(times, shown, strict=True))]
    print(f"{codec} in {form}: frames as decoded {shown}, types {types}\n  pts {times}, dts {[frame.dts for frame in frames]}")
    print("  frames sorted by pts:", orders[form, codec])
    assert shown == list(range(1, 13)) and "B" in types, "the decoder's order is another one"
    assert len(set(times)) == 12 and None not in times
    if (form, codec) == ("avi", "libx264"):
        coding = [frame.dts for frame in frames if frame.dts is not None]
        assert coding == sorted(coding) and len(coding) < 12
assert orders["avi", "libx264"][:7] == [1, 4, 2, 3, 7, 5, 6], "the times are right now"
assert orders["avi", "mpeg4"] == orders["mp4", "libx264"] == list(range(1, 13))
PYTHON
