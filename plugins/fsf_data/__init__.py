"""Datasets: folders, zip files and shards of images, the ORL faces, FaceForensics++ as published, and swaps of them."""

from fsf_data.face_folder import FaceFolder
from fsf_data.ffpp import FaceForensics
from fsf_data.orl import Orl
from fsf_data.swapped import Swapped
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [FaceFolder, FaceForensics, Orl, Swapped]
