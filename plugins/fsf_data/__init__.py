"""Datasets: folders, zip files and shards of images, the ORL faces, FaceForensics++ as published, mixtures."""

from fsf_data.face_folder import FaceFolder
from fsf_data.ffpp import FaceForensics
from fsf_data.mixed import Mixed
from fsf_data.orl import Orl
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [FaceFolder, FaceForensics, Mixed, Orl]
