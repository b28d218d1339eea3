"""Face detectors."""

from fsf_detectors.mtcnn import MTCNN
from fsframework import hookimpl


@hookimpl
def register_detectors():
    return [MTCNN]
