#!/usr/bin/env bash
# Guess: FFmpeg's `-c copy` and PyAV's `add_stream_from_template` write the same codecs to a container, as both use
# FFmpeg's writer; so mu-law sound of a phone or camera in WAV or .mov can be copied to Matroska by either.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2) and FFmpeg 7.0.2 (imageio-ffmpeg 0.6.0): FFmpeg's command copies mu-law and
# A-law to Matroska without a complaint, and PyAV reads that file and decodes the sound that was there. PyAV itself
# refuses to write it: ValueError, the format does not support the codec, both by a template and by `add_stream`, and
# the option strict does not help. It copies both to .mov and AVI. Copies of films to .mkv by PyAV need a way out for
# such sound, say PCM of 16 bits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6 imageio-ffmpeg==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import subprocess

import av
import imageio_ffmpeg
import numpy as np


def read(path):
    with av.open(path) as container:
        codec = container.streams.audio[0].codec_context.name
        return codec, np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def copy(path, target):
    with av.open(path) as source, av.open(target, "w") as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)


def refused(action):
    try:
        action()
    except ValueError as error:
        print("  PyAV:", error)
        return True
    return False


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info, "and", imageio_ffmpeg.get_ffmpeg_version())
for codec in ("pcm_mulaw", "pcm_alaw"):
    samples = (8000 * np.sin(0.1 * np.arange(8000))).astype(np.int16)[None]
    with av.open(f"{codec}.wav", "w") as container:
        stream = container.add_stream(codec, rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    name, written = read(f"{codec}.wav")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", f"{codec}.wav", "-c", "copy", f"{codec}.mkv"]
    subprocess.run(command, check=True)
    again, kept = read(f"{codec}.mkv")
    print(f"{codec}: FFmpeg copied it to Matroska, PyAV reads {again}, equal samples: {np.array_equal(written, kept)}")
    assert name == again == codec and len(kept) == 8000 and np.array_equal(written, kept)
    assert refused(lambda: copy(f"{codec}.wav", "copy.mkv")), "a template is accepted now"
    with av.open("new.mkv", "w", options={"strict": "experimental"}) as container:
        assert refused(lambda: container.add_stream(codec, rate=8000, layout="mono")), "a new stream is accepted now"
    for target in ("copy.mov", "copy.avi"):
        copy(f"{codec}.wav", target)
        assert read(target)[0] == codec
PYTHON
