"""Measures the centre of dlib-resnet: the mean raw vector over the people of some pictures.

    python -m fsf_identity.measure_centre PICTURES CENTRE.json

The shipped centre comes from 2000 pictures of Labeled Faces in the Wild (Huang et al., 2007).
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


def pictures(place: Path, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """At most `count` pictures (H, W, 3) of a folder or zip file `person/picture`, evenly spread, with their people."""
    if place.is_dir():
        paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        for path in _spread(paths, count):
            yield path.parent.name, read_image(path)
        return
    try:
        archive = zipfile.ZipFile(place)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{place}: is neither a folder nor a zip file; give one with pictures") from error
    with archive:
        members = sorted(name for name in archive.namelist() if PurePath(name).suffix.lower() in SUFFIXES)
        for name in _spread(members, count):
            yield PurePath(name).parent.name, read_image(io.BytesIO(archive.read(name)), f"{place}/{name}")


def _spread(items: list[Any], count: int) -> list[Any]:
    return [items[len(items) * k // count] for k in range(count)] if len(items) > count else items


def measure(place: Path, count: int) -> Tensor:
    """The mean (128,) of the people's mean raw vectors.

    Raises
    ------
    UserError
        The pictures cannot be read, or show no face.
    """
    encoder = DlibResNet(DlibResNet.Options())
    encoder.load()
    detector = part("detectors", "mtcnn").build()
    detector.load()
    vectors: dict[str, list[Tensor]] = {}
    source = pictures(place, count)
    while group := list(islice(source, 32)):
        found = detector([picture for _, picture in group])
        seen = [(who, picture, faces[0]) for (who, picture), faces in zip(group, found, strict=True) if faces]
        if not seen:
            continue
        crops = np.stack([align(picture, face, SIZE).image for _, picture, face in seen])
        with torch.inference_mode():
            raw = encoder.raw(encoder.crop(to_tensor(crops)))
        for (who, _, _), vector in zip(seen, raw, strict=True):
            vectors.setdefault(who, []).append(vector)
    if not vectors:
        raise UserError(f"{place}: no face was found; give a folder or zip file of pictures with faces")
    return torch.stack([torch.stack(person).mean(dim=0) for person in vectors.values()]).mean(dim=0)


@click.command()
@click.argument("place", metavar="PICTURES", type=click.Path(path_type=Path))
@click.argument("out", metavar="CENTRE.json", type=click.Path(path_type=Path))
@click.option("--count", default=2000, show_default=True, type=click.IntRange(min=1), help="Pictures to use at most.")
def main(place: Path, out: Path, count: int) -> None:
    """Measure the mean vector over a folder or zip file of PICTURES, laid out as person/picture."""
    try:
        centre = measure(place, count)
        numbers = [round(number, 6) for number in centre.tolist()]
        write_text(out, json.dumps({"centre": numbers}) + "\n")
    except UserError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
