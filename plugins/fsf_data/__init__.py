"""Data sets: your own pictures, the ORL faces, and FaceForensics++ as its authors give it out."""

from fsf_data.face_folder import FaceFolder
from fsf_data.ffpp import FaceForensics
from fsf_data.orl import Orl
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [FaceFolder, FaceForensics, Orl]
