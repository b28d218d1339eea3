"""Extract aligned faces from images, folders and videos."""

from collections.abc import Sequence
from pathlib import Path

from fsframework.core.part import part
from fsframework.data import extract as extraction
from fsframework.data.extract import Extracted
from fsframework.data.extract_faces import ExtractOptions
from fsframework.data.webdataset import load_webdataset
from fsframework.utils.device import pick_device
from fsframework.utils.executors import SERIAL, Executor
from fsframework.utils.shards import WHOLE, JobShard


def extract(
    inputs: Sequence[str | Path],
    out: str | Path,
    options: ExtractOptions | None = None,
    detector: str = "mtcnn",
    encoder: str = "dlib-resnet",
    device: str | None = None,
    shard: JobShard = WHOLE,
    executor: Executor = SERIAL,
) -> Extracted:
    """Write an aligned crop of every face to a new folder, grouped by person, and return the numbers of both.

    Parameters
    ----------
    inputs:
        Images, videos and folders of them.
    out:
        A folder that does not exist, or is empty. Recipes train on it: `data={use: face-folder, root: OUT}`.
    options:
        Which faces are extracted, and the size of the crops. None: the defaults.
    detector, encoder:
        Names of a detector, and of the identity encoder that assigns faces to people.
    device:
        As torch names it. None: the GPU if there is one.
    shard, executor:
        Which of the files to process, and what processes them.

    Raises
    ------
    UserError
        An input does not exist, no face was found, or the folder cannot be written.
    """
    options = options or ExtractOptions()
    if options.sharded is not None:
        load_webdataset()  # fail early if it is not installed
    torch_device = pick_device(device)
    networks = part("detectors", detector).build(), part("identity-encoders", encoder).build()
    for network in networks:
        network.load()
        network.to(torch_device).eval()
    paths = [Path(path) for path in inputs]
    return extraction.extract(paths, Path(out), options, *networks, torch_device, shard, executor)
