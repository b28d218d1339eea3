"""Measure the centre of dlib-resnet: the mean of dlib's original embeddings over the people of an image collection.

    python -m fsf_identity.measure_centre PICTURES CENTRE.json

The default centre was measured on 2000 images of Labeled Faces in the Wild (Huang et al., 2007).
"""

import io
import json
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from fsf_identity.dlib_resnet import DlibResNet
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.faces.align import align
from fsframework.media.image_io import SUFFIXES, read_image
from fsframework.media.tensor import to_tensor
from fsframework.utils.files import write_text

SIZE = 128  # side of the aligned crops in pixels


def pictures(path: Path, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (person, image) of at most `count` images (H, W, 3) uint8 of a folder or zip file, evenly spaced.

    The file layout is `person/picture`. Raises UserError if `path` is neither a folder nor a zip file.
    """
    if path.is_dir():
        paths = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        for file in _spread(paths, count):
            yield file.parent.name, read_image(file)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is neither a folder nor a zip file; give one with pictures") from error
    with archive:
        members = sorted(name for name in archive.namelist() if PurePath(name).suffix.lower() in SUFFIXES)
        for name in _spread(members, count):
            yield PurePath(name).parent.name, read_image(io.BytesIO(archive.read(name)), f"{path}/{name}")


def _spread(items: list[Any], count: int) -> list[Any]:
    return [items[len(items) * k // count] for k in range(count)] if len(items) > count else items


def measure(path: Path, count: int) -> Tensor:
    """Return the mean (128,) over people of each person's mean embedding.

    Raises
    ------
    UserError
        The images cannot be read, or contain no face.
    """
    encoder = DlibResNet(DlibResNet.Options())
    encoder.load()
    detector = part("detectors", "mtcnn").build()
    detector.load()
    vectors: dict[str, list[Tensor]] = {}
    source = pictures(path, count)
    while group := list(islice(source, 32)):
        detections = detector([picture for _, picture in group])
        aligned = [
            (person, picture, faces[0]) for (person, picture), faces in zip(group, detections, strict=True) if faces
        ]
        if not aligned:
            continue
        crops = np.stack([align(picture, face, SIZE).image for _, picture, face in aligned])
        with torch.inference_mode():
            raw = encoder.raw(encoder.crop(to_tensor(crops)))
        for (person, _, _), vector in zip(aligned, raw, strict=True):
            vectors.setdefault(person, []).append(vector)
    if not vectors:
        raise UserError(f"{path}: no face was found; give a folder or zip file of pictures with faces")
    return torch.stack([torch.stack(embeddings).mean(dim=0) for embeddings in vectors.values()]).mean(dim=0)


@click.command()
@click.argument("path", metavar="PICTURES", type=click.Path(path_type=Path))
@click.argument("out", metavar="CENTRE.json", type=click.Path(path_type=Path))
@click.option("--count", default=2000, show_default=True, type=click.IntRange(min=1), help="Pictures to use at most.")
def main(path: Path, out: Path, count: int) -> None:
    """Measure the mean embedding over a folder or zip file of PICTURES, laid out as person/picture."""
    try:
        centre = measure(path, count)
        numbers = [round(number, 6) for number in centre.tolist()]
        write_text(out, json.dumps({"centre": numbers}) + "\n")
    except UserError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
