"""A plugin for fsframework: dlib's HOG detector."""

from fsf_hog.hog import Hog
from fsframework import Detector, hookimpl


@hookimpl
def register_detectors() -> list[type[Detector]]:
    return [Hog]
