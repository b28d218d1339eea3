#!/usr/bin/env bash
# Guess: two yuv420p frames with equal planes, size, colour space and range give the same RGB picture, and decoding
# to RGB, encoding without loss and decoding again leaves colours where they are.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): with the converter's exact flags (ACCURATE_RND, FULL_CHR_H_INT) colours move
# to the left by half a pixel in each pass through H.264, two pixels after four. The decoder marks frames as having
# chroma samples at the left of each pair, H.264's default, and the converter heeds this mark when it makes RGB. A
# frame from RGB has no such mark and gets chroma at the centre. PyAV shows the mark nowhere and offers no way to set
# it. Copying the planes to a fresh frame before the conversion, or the encoder's option chromaloc=1, stops the
# drift. The default flags do not move colours, but darken (see swscale_accurate_rounding_darkens_grey.sh).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np
from av.video.reformatter import Interpolation

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
y, x = np.mgrid[:64, :64]
blob = np.exp(-((x - 31.5) ** 2 + (y - 31.5) ** 2) / 2 / 6**2)
picture = np.rint(np.stack([110 + 100 * blob, 128 - 30 * blob, 128 - 30 * blob], -1)).astype(np.uint8)


def coded(frame, **options):
    """Return a frame after H.264 without loss."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", **options})
        stream.width, stream.height, stream.pix_fmt, frame.pts = 64, 64, "yuv420p", 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return next(container.decode(video=0))


def fresh(frame):
    return av.VideoFrame.from_ndarray(frame.to_ndarray(), frame.format.name)


def centre(array):
    """Return where the red spot is."""
    red = np.clip(array[..., 0].astype(float) - array[..., 1] - 10, 0, None)
    return round(float((red * x).sum() / red.sum()), 2), round(float((red * y).sum() / red.sum()), 2)


def drift(step, flags):
    array, places = picture, []
    for _ in range(4):
        frame = step(av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p", interpolation=int(flags)))
        array = frame.to_ndarray(format="rgb24", interpolation=int(flags))
        places.append(centre(array))
    return places


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
before = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p", interpolation=int(EXACT))
after = coded(before)
assert (before.to_ndarray() == after.to_ndarray()).all(), "the coding is not without loss"
shown = [name for name in dir(after) if not name.startswith("_") and name not in ("planes", "side_data", "opaque")]
print("public attributes with chroma or location in their names:", [name for name in shown if "chroma" in name or "loc" in name])
for name in ("colorspace", "color_range", "color_primaries", "color_trc", "width", "height"):
    assert getattr(before, name) == getattr(after, name), name
rgb = [frame.to_ndarray(format="rgb24", interpolation=int(EXACT)).astype(int) for frame in (before, after)]
print("equal planes, equal attributes; the RGB pictures differ by up to", abs(rgb[0] - rgb[1]).max(), "of 255")
found = {"no codec": drift(lambda frame: frame, EXACT), "H.264": drift(coded, EXACT),
         "H.264, fresh frame": drift(lambda frame: fresh(coded(frame)), EXACT),
         "H.264, chromaloc=1": drift(lambda frame: coded(frame, **{"x264-params": "chromaloc=1"}), EXACT),
         "H.264, default flags": drift(coded, Interpolation.BILINEAR)}
for name, places in found.items():
    print(f"{name}: centre of the spot after each pass: {places}")
[*_, last] = found.pop("H.264")
assert last[0] < 30 and abs(last[1] - 31.5) < 0.1, "the colours stay now"
assert abs(rgb[0] - rgb[1]).max() >= 3
assert all(abs(place - 31.5) < 0.1 for places in found.values() for pair in places for place in pair), "a remedy moves colours"
PYTHON
