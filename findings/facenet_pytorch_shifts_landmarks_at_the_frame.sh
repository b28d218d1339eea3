#!/usr/bin/env bash
# Guess: when a frame cuts a face at its cheek, with both eyes, nose and mouth in the picture, MTCNN of facenet-pytorch
# places the five landmarks where it places them in the whole picture, within a tenth of the distance of the eyes.
# Seen with facenet-pytorch 2.6.0: they are off by more than half of that distance, without a lower score. Its crops for
# R-Net and O-Net end at the frame, and what is left is stretched to a square; the authors' code fills the missing part.
# With a grey border around the picture, landmarks and score are those of the whole one. Whoever aligns faces by these
# landmarks gets a tilted, squeezed crop from every portrait that is framed tightly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 scikit-image==0.26.0 requests==2.32.5 tqdm==4.67.1
"$folder/venv/bin/pip" install --quiet --no-deps facenet-pytorch==2.6.0 # its bounds ask for an old torch
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from facenet_pytorch import MTCNN
from skimage import data

detector = MTCNN(select_largest=False)
picture = data.astronaut()


def found(frame):
    _, scores, landmarks = detector.detect(frame, landmarks=True)
    return float(scores[0]), np.array(landmarks[0], dtype=float)


score, whole = found(picture)
eyes = np.linalg.norm(whole[0] - whole[1])
print(f"whole picture: score {score:.4f}, eyes {eyes:.0f} pixels apart")
for name, top, left, bottom, right in (("left", 40, 194, 230, 330), ("right", 40, 140, 230, 256), ("top", 85, 140, 230, 330)):
    cut = picture[top:bottom, left:right]
    assert ((whole > (left, top)) & (whole < (right, bottom))).all(), "a landmark is cut off"
    padded = np.pad(cut, ((100, 100), (100, 100), (0, 0)), constant_values=127)
    (one, plain), (other, framed) = found(cut), found(padded)
    shifts = [np.linalg.norm(points - whole, axis=1).max() / eyes for points in (plain + (left, top), framed - 100 + (left, top))]
    print(f"cut at the {name}: score {one:.4f}, off by {shifts[0]:.0%} of the eyes' distance; with a border {other:.4f}, {shifts[1]:.0%}")
    assert shifts[0] > 2 * shifts[1] and shifts[1] < 0.15, "cut faces have good landmarks now"
PYTHON
