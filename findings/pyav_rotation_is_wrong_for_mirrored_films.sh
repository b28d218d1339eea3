#!/usr/bin/env bash
# Guess: `frame.rotation` of PyAV is the turn that shows a decoded frame upright, 0 for a film that is not turned;
# and `frame.side_data`, a Mapping, gives its entries by `values()` and `items()`.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): for a display matrix that only swaps left and right (a selfie film)
# `rotation` is -180, the same as for half a turn, and a player that turns by it shows the film upside down. For a
# swap of top and bottom it is 0: the film stays upside down. The mirror is found only in the matrix, by the sign of
# its determinant, negative for mirrored films. Iterating over `frame.side_data` yields values, not keys, so
# `dict(frame.side_data)`, `values()` and `items()` raise KeyError; `[each for each in frame.side_data]` and
# `frame.side_data["DISPLAYMATRIX"]` work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import collections.abc, io, struct

import av
import numpy as np

file = io.BytesIO()
with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), "rgb24")
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
film = file.getvalue()


def matrix(a, b, c, d):
    return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


start = film.index(matrix(1, 0, 0, 1), film.index(b"tkhd"))  # the matrix of the track's header
cases = {"left and right swapped": (-1, 0, 0, 1), "top and bottom swapped": (1, 0, 0, -1), "half a turn": (-1, 0, 0, -1),
         "a quarter turn": (0, 1, -1, 0), "a quarter turn, mirrored": (0, 1, 1, 0)}
rotations, determinants = {}, {}
print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
for name, entries in cases.items():
    with av.open(io.BytesIO(film[:start] + matrix(*entries) + film[start + 36:])) as container:
        frame = next(container.decode(video=0))
    read = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)[:2, :2] / 65536
    assert read.ravel().tolist() == list(entries)
    rotations[name], determinants[name] = frame.rotation, round(float(np.linalg.det(read)))
    print(f"{name}: rotation {frame.rotation}, determinant of the matrix {determinants[name]}")
data = frame.side_data
print("entries by iteration:", [each.type.name for each in data], "- a Mapping:", isinstance(data, collections.abc.Mapping))
assert isinstance(data, collections.abc.Mapping) and "DISPLAYMATRIX" in [each.type.name for each in data]
for name, read in {"values()": collections.abc.Mapping.values, "items()": collections.abc.Mapping.items, "dict": dict}.items():
    try:
        list(read(data))
    except KeyError:
        print(f"{name}: KeyError")
    else:
        raise AssertionError(f"{name} works now")
assert list(rotations.values()) == [-180, 0, -180, -90, -90], "rotation heeds mirrors now"
assert list(determinants.values()) == [-1, -1, 1, 1, -1]
PYTHON
