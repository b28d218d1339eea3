#!/usr/bin/env bash
# Guess: `container.seek(time, stream=stream)` of PyAV, whose `backward` is True, lands at the wanted frame or at a
# key frame before it, so that decoding onwards until the time is reached yields every wanted frame.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): true for MP4 and Matroska, false for MPEG-TS and MPEG-PS. There the position
# need not be a key frame, and the decoder drops pictures until the next one. Where the key frame's packet has a
# decoding time before its presentation time (B-frames; MPEG-2 video always), even seeking to the key frame itself
# passes it. So seeking to the time of the very first frame yields frame 25, seeking into the last group of pictures
# yields no frame at all, and nothing reports it. A section cut out of such a file lacks up to a group of pictures at
# its start. Remedy: while the first decoded frame is later than the wanted one, or missing, seek again to an earlier
# time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np

GROUP, FRAMES = 25, 100
noise = np.random.default_rng(0).integers(20, 120, (240, 320, 3), dtype=np.uint8)


def film(form, codec, between):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options={"bf": str(between), "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = GROUP, 2_000_000
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number, 1), "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def landed(file, time, times):
    """Return the number of the first frame decoded after a seek, and whether the first packet holds a key frame."""
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        container.seek(time, stream=stream)
        key = next(container.demux(stream)).is_keyframe
        container.seek(time, stream=stream)
        frame = next(container.decode(stream), None)
        return (None if frame is None else times.index(frame.pts)), key


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
for form, codec, between in [("mp4", "libx264", 2), ("matroska", "libx264", 2), ("mpegts", "libx264", 2),
                             ("mpegts", "libx264", 0), ("mpegts", "mpeg2video", 0), ("mpeg", "mpeg2video", 0)]:
    file = film(form, codec, between)
    file.seek(0)
    with av.open(file) as container:
        frames = [(frame.pts, frame.key_frame) for frame in container.decode(video=0)]
    times = [time for time, _ in frames]
    assert len(times) == FRAMES and times == sorted(times)
    keys = [number for number, (_, key) in enumerate(frames) if key]
    results = {wanted: landed(file, times[wanted], times) for wanted in (*keys, 10, 40, 90)}
    print(f"{form}, {codec}, {between} B-frames; wanted -> first decoded (first packet is a key frame):",
          ", ".join(f"{wanted} -> {found} ({key})" for wanted, (found, key) in results.items()))
    late = {wanted for wanted, (found, _) in results.items() if found is None or found > wanted}
    if form in ("mp4", "matroska"):
        assert not late, "an indexed container seeks too far now"
    else:
        file.seek(0)
        with av.open(file) as container:
            early = all(packet.dts < packet.pts for packet in container.demux(video=0) if packet.size and packet.is_keyframe)
        assert late >= {10, 40, 90}, "seeking between key frames goes backwards now"
        assert early == (codec == "mpeg2video" or between > 0), "decoding times are others"
        assert early == (late >= set(keys)), "seeking to a key frame is different now"
        before = landed(file, times[0] - (times[GROUP] - times[0]), times)
        print("   a group before the first frame ->", before[0])
        assert before[0] == 0
PYTHON
