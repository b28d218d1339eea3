"""Datasets: folders, zip files and shards of images, ORL, FaceForensics++, mixtures, and swaps of another dataset."""

from fsf_data.face_folder import FaceFolder
from fsf_data.ffpp import FaceForensics
from fsf_data.mixed import Mixed
from fsf_data.orl import Orl
from fsf_data.swapped import Swapped
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [FaceFolder, FaceForensics, Mixed, Orl, Swapped]
