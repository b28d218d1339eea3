#!/usr/bin/env bash
# Guess: RGB to yuv420p and back with PyAV's `reformat` keeps the mean brightness, rounding errors cancel, and the
# flag ACCURATE_RND of FFmpeg's converter makes it more exact.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2) on x86-64: by default a smooth colour picture gets darker by about 1.2 of 255
# a pass, 3.6 after three. ACCURATE_RND alone is worse: 4.2, and a uniform grey 128, which the default keeps, becomes
# 126, 124, 122; white becomes 253. The loss is on the way back to RGB. ACCURATE_RND with FULL_CHR_H_INT keeps the
# mean within 0.02; neither flag suffices alone. FFmpeg's own command shows the same (7.0.2 of imageio-ffmpeg 0.6.0),
# and that the default keeps grey only by vector instructions: with `-cpuflags 0` it gives 126 too. So pixels depend
# on the processor's code, and only both flags give the same and exact grey. Software that edits films in several
# passes should set both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6 imageio-ffmpeg==0.6.0
"$folder/venv/bin/python" - <<'PYTHON'
import subprocess

import av
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import Interpolation

y, x = np.mgrid[:128, :128] / 127
smooth = np.rint(np.stack([60 + 120 * x, 60 + 120 * y, 180 - 60 * x - 60 * y], -1)).astype(np.uint8)
grey, white = (np.full((128, 128, 3), value, np.uint8) for value in (128, 255))
PLAIN = Interpolation.BILINEAR
ROUNDED = PLAIN | Interpolation.ACCURATE_RND
FULL = PLAIN | Interpolation.FULL_CHR_H_INT
BOTH = ROUNDED | Interpolation.FULL_CHR_H_INT


def passes(picture, flags):
    """Return the changes of the mean after one, two and three conversions to yuv420p and back."""
    options = {} if flags is None else {"interpolation": int(flags)}
    array, changes = picture, []
    for _ in range(3):
        frame = av.VideoFrame.from_ndarray(array, "rgb24").reformat(format="yuv420p", **options)
        array = frame.to_ndarray(format="rgb24", **options)
        changes.append(round(float(array.mean() - picture.mean()), 2))
    return changes


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
found = {}
for name, flags in (("default", None), ("BILINEAR", PLAIN), ("ACCURATE_RND", ROUNDED), ("FULL_CHR_H_INT", FULL), ("both", BOTH)):
    found[name] = [passes(picture, flags) for picture in (smooth, grey, white)]
    print(f"{name}: smooth {found[name][0]}, grey {found[name][1]}, white {found[name][2]}")
frames = [av.VideoFrame.from_ndarray(grey, "rgb24").reformat(format="yuv420p", interpolation=int(f)) for f in (PLAIN, ROUNDED)]
luma = [np.unique(frame.to_ndarray()[:128]) for frame in frames]
print(f"luma of grey without and with ACCURATE_RND: {luma[0]}, {luma[1]}; exact: {16 + 219 * 128 / 255:.2f}")
assert luma[0].tolist() == luma[1].tolist() == [126], "the way to yuv420p differs now"
for name in ("default", "BILINEAR", "FULL_CHR_H_INT"):
    assert found[name][0][2] < -3, f"{name} is different now"
assert found["ACCURATE_RND"][0][2] < -4 and found["ACCURATE_RND"][1] == [-2, -4, -6], "ACCURATE_RND alone is different now"
assert found["ACCURATE_RND"][2][0] == -2
assert all(abs(change) < 0.05 for changes in found["both"] for change in changes), "both flags are not exact now"

yuv = bytes([126]) * 128 * 128 + bytes([128]) * 128 * 64
command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "128x128", "-i", "-"]
plain = []
for flags in ("bilinear", "bilinear+accurate_rnd", "bilinear+accurate_rnd+full_chroma_int"):
    values = []
    for processor in ("all", "0"):
        options = ["-vf", f"scale=flags={flags},format=rgb24", "-f", "rawvideo", "-"]
        made = subprocess.run([*command, "-cpuflags", processor, *raw, *options], input=yuv, capture_output=True, check=True)
        [value] = set(made.stdout)
        values.append(value)
    plain.append(values)
    print(f"FFmpeg {imageio_ffmpeg.get_ffmpeg_version()}, {flags}: luma 126 gives {values[0]}, without vector code {values[1]}")
assert plain[0][1] == 126 and plain[1] == [126, 126] and plain[2] == [128, 128], "the command is different now"
PYTHON
