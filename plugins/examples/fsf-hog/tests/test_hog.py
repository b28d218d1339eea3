import numpy as np

from fsf_hog.hog import Hog
from fsframework.testing import LANDMARKS, check_detector, portrait


def test_contract() -> None:
    check_detector(Hog)


def test_landmarks_are_near_those_of_another_detector() -> None:
    detector = Hog(Hog.Options())
    detector.load()
    face = detector([portrait()])[0][0]
    apart = np.linalg.norm(face.landmarks - LANDMARKS, axis=1).mean()
    assert apart < 0.1 * np.linalg.norm(LANDMARKS[1] - LANDMARKS[0])
