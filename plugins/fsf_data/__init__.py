"""Data sets: your own pictures, and the ORL faces."""

from fsf_data.face_folder import FaceFolder
from fsf_data.orl import Orl
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [FaceFolder, Orl]
