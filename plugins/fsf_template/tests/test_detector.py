import numpy as np

from fsf_template.detector import TemplateDetector
from fsframework.testing import check_detector, portrait


def test_contract() -> None:
    check_detector(TemplateDetector)


def test_large_frames_are_thinned_out() -> None:
    detector = TemplateDetector(TemplateDetector.Options())
    detector.load()
    large = np.kron(portrait(), np.ones((2, 2, 1), np.uint8))
    one, other = (faces[0] for faces in detector([portrait(), large]))
    apart = np.linalg.norm(2 * one.landmarks - other.landmarks, axis=1).mean()
    assert apart < 0.2 * (other.box[2] - other.box[0])
