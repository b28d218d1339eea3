"""Datasets: folders and zip files of images, with masks too, shards, ORL, FaceForensics++, mixtures, and swaps."""

from fsf_data.augmented import Augmented
from fsf_data.face_folder import FaceFolder
from fsf_data.face_masks import FaceMasks
from fsf_data.ffpp import FaceForensics
from fsf_data.mixed import Mixed
from fsf_data.orl import Orl
from fsf_data.swapped import Swapped
from fsframework import hookimpl


@hookimpl
def register_datasets():
    return [Augmented, FaceFolder, FaceForensics, FaceMasks, Mixed, Orl, Swapped]
