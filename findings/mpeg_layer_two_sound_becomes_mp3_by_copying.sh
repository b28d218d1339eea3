#!/usr/bin/env bash
# Guess: MPEG layer 2 sound (mp2) in MPEG-TS or MP4 is read as mp2 by PyAV, as in MPEG-PS, .mov, AVI or Matroska, and
# copying its packets to another container keeps the codec's name.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): from MPEG-TS and MP4 the same packets are read as mp3. They decode to the
# same sound, though as float32 and not int16, so a test by ear shows nothing. But a copy to Matroska with
# `add_stream_from_template` says A_MPEG/L3 where the bytes are layer 2, and PyAV reads the copy as mp3, though
# Matroska has A_MPEG/L2. For a right copy look at the two layer bits of a packet's header, and do not trust the
# codec's name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np


def sound(form):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("mp2", rate=48000, layout="mono")
        for number in range(100):
            samples = (8000 * np.sin(0.1 * (np.arange(1152) + 1152 * number))).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            frame.sample_rate, frame.pts = 48000, 1152 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def read(file):
    """Return the codec, the layers that the packets' headers state, the first packets and the decoded sound."""
    file.seek(0)
    with av.open(file) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    file.seek(0)
    with av.open(file) as container:
        codec = container.streams.audio[0].codec_context.codec.canonical_name
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return codec, {4 - (packet[1] >> 1 & 3) for packet in packets}, packets, decoded


def copied(file):
    file.seek(0)
    copy = io.BytesIO()
    with av.open(file) as source, av.open(copy, "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return copy


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
first = None
for form in ("mpeg", "mov", "avi", "matroska", "mpegts", "mp4"):
    file = sound(form)
    codec, layers, packets, decoded = read(file)
    copy = copied(file)
    label = next(text for text in ("A_MPEG/L2", "A_MPEG/L3") if text.encode() in copy.getvalue())
    after, still, *_ = read(copy)
    print(f"{form}: {codec}, {decoded.dtype}, layers {layers}; copied to Matroska: {label}, {after}, layers {still}")
    first = first or packets
    wrong = form in ("mpegts", "mp4")
    assert layers == still == {2} and packets == first
    assert codec == after == ("mp3" if wrong else "mp2"), "the codec's name is another one now"
    assert label == ("A_MPEG/L3" if wrong else "A_MPEG/L2")
    assert decoded.dtype == (np.float32 if wrong else np.int16)
    loud = np.abs(decoded[5000:].astype(float)).max() / (1 if wrong else 32768)
    assert abs(loud - 8000 / 32768) < 0.02, loud
PYTHON
