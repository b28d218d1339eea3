#!/usr/bin/env bash
# Guess: an encoder that is flushed returns every packet with valid times, however few the frames.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2, x265 4.2): after one or two frames libx265 returns packets whose decoding times
# are uninitialised memory, often far above the presentation times; the MP4 writer then refuses the packet with "pts/dts
# pair unsupported", which PyAV reports as "Not yet implemented in FFmpeg, patches welcome". From three frames on all
# times are right. A film cut into segments fails by chance, when one or two frames are left for the last segment.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av


def times(count, codec="libx265"):
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        packets = []
        for number in range(count):
            frame = av.VideoFrame(160, 120, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode()
        return [(packet.pts, packet.dts) for packet in packets]


def wrong(found):
    return any(dts > pts or pts - dts > 8 for pts, dts in found)


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
counts = {}
for codec in ("libx265", "libx264"):
    for count in (1, 2, 3, 4, 12):
        counts[codec, count] = sum(wrong(times(count, codec)) for _ in range(60))
        print(f"{codec}, {count} frames: {counts[codec, count]} of 60 streams have impossible decoding times")
assert counts["libx265", 1] + counts["libx265", 2] > 0, "times of short streams are set now"
assert all(found == 0 for (codec, count), found in counts.items() if codec == "libx264" or count > 2)
PYTHON
