"""Face detectors, landmark estimators, and the landmark loss."""

from fsf_detectors.dlib_landmarks import DlibLandmarks
from fsf_detectors.five_point import FivePointLandmarks
from fsf_detectors.landmarks import Landmarks
from fsf_detectors.mtcnn import MTCNN
from fsf_detectors.retinaface import RetinaFace
from fsframework import hookimpl


@hookimpl
def register_detectors():
    return [MTCNN, RetinaFace]


@hookimpl
def register_losses():
    return [Landmarks]


@hookimpl
def register_estimators():
    return [DlibLandmarks, FivePointLandmarks]
