"""Datasets: folders, zip files and shards of images, with masks too, ORL, and FaceForensics++ as published."""

from fsf_data.augmented import Augmented
from fsf_data.face_folder import FaceFolder
from fsf_data.face_masks import FaceMasks
from fsf_data.ffpp import FaceForensics
from fsf_data.orl import Orl
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [Augmented, FaceFolder, FaceForensics, FaceMasks, Orl]
