"""Datasets: folders, zip files and shards of images, the ORL faces, and FaceForensics++ as published."""

from fsf_data.face_folder import FaceFolder
from fsf_data.ffpp import FaceForensics
from fsf_data.orl import Orl
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [FaceFolder, FaceForensics, Orl]
