import numpy as np

from fsf_template.estimator import TemplateEstimator, pose
from fsframework.testing import LANDMARKS, check_estimator


def test_contract() -> None:
    check_estimator(TemplateEstimator)


def test_a_nose_to_the_right_is_yaw_to_the_right() -> None:
    turned = LANDMARKS + np.array([[0, 0], [0, 0], [10, 0], [0, 0], [0, 0]])
    assert pose(turned)[0] > pose(LANDMARKS)[0] + 20
    assert abs(pose(LANDMARKS)[2]) < 5
