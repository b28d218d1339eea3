#!/usr/bin/env bash
# Guess: PyAV's `add_stream_from_template` copies any stream of pictures that it can open, as FFmpeg's `-c copy` does.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): by default it looks for an encoder with the name of the template's decoder. That
# of AV1 is libdav1d, which is no encoder, so films of AV1 cannot be copied: UnknownCodecError. With `opaque=True`,
# which its documentation describes as copying opaque data of the context, the decoder serves as the codec, and the
# copy has all frames.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$folder"
SVT_LOG=1 "$folder/venv/bin/python" - <<'PYTHON'
import av


def make(path, codec):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame(160, 120, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([40 + number]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def copy(path, target, **options):
    with av.open(path) as source, av.open(target, "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0], **options)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    with av.open(target) as container:
        return sum(1 for _ in container.decode(video=0))


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
for codec in ("libx264", "libsvtav1"):
    make(f"{codec}.mp4", codec)
print("H.264 copied:", copy("libx264.mp4", "x264.mkv"), "frames")
try:
    copy("libsvtav1.mp4", "default.mkv")
    raise SystemExit("AV1 is copied now")
except av.codec.codec.UnknownCodecError as error:
    print("AV1 refused: UnknownCodecError:", error)
found = copy("libsvtav1.mp4", "opaque.mkv", opaque=True)
print("AV1 copied with opaque=True:", found, "frames")
assert found == 8
PYTHON
