"""Dataset of images with segmentation masks, such as CelebAMask-HQ (Lee et al., arXiv:1907.11922)."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from fsf_data.aligned_cache import AlignedFaces, Row, cached
from fsf_data.locate import fingerprint, locate
from fsf_data.sources import Folder, Picture, Zip, open_source
from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import EmptySplitError, UserError
from fsframework.core.types import Sample
from fsframework.faces.align import align, transform, warp
from fsframework.utils.progress import tracked

CLASSES = (  # CelebAMask-HQ's, in the order of their numbers
    *("background", "skin", "nose", "glasses", "left eye", "right eye", "left brow", "right brow"),
    *("left ear", "right ear", "mouth", "upper lip", "lower lip", "hair", "hat", "earring", "necklace", "neck"),
    "cloth",
)
FACE = (1, 2, 4, 5, 6, 7, 10, 11, 12)  # skin, nose, eyes, brows, mouth, lips
GLASSES = CLASSES.index("glasses")
CLOSING = 0.04  # of the image's side: gaps in the glasses up to this width are closed
Class = Annotated[int, Field(ge=0, le=255)]


class FaceMasks(Dataset):
    """Images with masks of class numbers: `Sample.valid_mask` marks the pixels that are no face.

    The mask of person/picture.jpg is masks/person/picture.png or masks/picture.png, a grey or palette image of the same
    size. Images without a mask are left out. Image and mask are aligned by the same matrix. Eyes and skin inside
    glasses count as glasses, so that both eyes are treated alike.
    """

    name = "face-masks"

    class Options(ComponentOptions):
        root: Path = Field(description="Folder or zip file of pictures, person/picture.jpg, and their masks.")
        masks: str = Field("masks", min_length=1, description="Folder of the masks in `root`.")
        face: tuple[Class, ...] = Field(
            FACE,
            min_length=1,
            description="Class numbers of the face. Default: skin, nose, eyes, brows, mouth and lips of CelebAMask-HQ.",
        )
        glasses: Class | None = Field(
            GLASSES, description="Class number of glasses; what they enclose is no face either. null: none."
        )
        test_share: float = Field(0.1, ge=0, le=1, description="Fraction of the people held out for tests.")
        cache: Path | None = Field(None, description="Folder for aligned crops; default: ~/.cache/fsframework.")

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops and masks; build it first if it is absent.

        Raises
        ------
        UserError
            There are no pictures with usable masks, or nobody is in this split.
        """
        options = self.options
        source = open_source(options.root.expanduser())
        masks = _take_masks(source, options.masks)
        if not source.pictures:
            place = f"{options.masks}/picture.png"
            raise UserError(f"{options.root}: holds no picture with a mask; person/picture.jpg has the mask {place}")

        def make() -> Iterator[Row]:
            return tracked(self._rows(source, masks), "aligning masks", len(source.pictures), "pictures")

        key = fingerprint(source, self.size, self.detector) | {
            "masks": [(mask.name, mask.size, mask.stamp) for mask in masks.values()],
            "face": sorted(options.face),
            "glasses": options.glasses,
        }
        self.faces: AlignedFaces = cached(options.cache, key, make)
        self.skipped = self.faces.skipped
        inside = np.ones(len(self.faces), bool)
        if self.split != "all":
            inside = self.faces.held_out(options.test_share) == (self.split == "test")
        self.indices = np.flatnonzero(inside)
        if not len(self.indices):
            raise EmptySplitError(
                f"{options.root}: nobody is in the split {self.split}; change test_share ({options.test_share})"
            )

    def _rows(self, source: Folder | Zip, masks: dict[str, Picture]) -> Iterator[Row]:
        """Yield a row for each picture, whose image (S, S, 4) has the face's coverage as fourth channel."""
        for item in locate(source, self.detector):
            picture = item.picture
            if item.frame is None or item.face is None:
                yield Row(picture.name, picture.person, note=item.reason)
                continue
            try:
                labels = source.labels(masks[picture.name])
                if labels.shape != item.frame.shape[:2]:
                    raise ValueError(f"the mask has {_size(labels)} pixels, the picture {_size(item.frame)}")
                aligned = align(item.frame, item.face, self.size)
            except (UserError, ValueError) as error:
                yield Row(picture.name, picture.person, note=str(error))
                continue
            mask = warp(face_mask(labels, self.options.face, self.options.glasses), aligned.matrix, self.size)
            landmarks = transform(item.face.landmarks, aligned.matrix)
            yield Row(picture.name, picture.person, np.dstack([aligned.image, mask]), landmarks)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self.faces[int(self.indices[index])]
        image = np.ascontiguousarray(row.image[..., :3])
        return Sample(image, row.name, row.person, row.landmarks, valid_mask=row.image[..., 3] < 128)

    def names(self) -> list[str]:
        return [self.faces.names[index] for index in self.indices.tolist()]

    def people(self) -> list[str | None]:
        return [self.faces.person_of(index) for index in self.indices.tolist()]


def _take_masks(source: Folder | Zip, folder: str) -> dict[str, Picture]:
    """Return the mask of each picture by the picture's name; leave only pictures with a mask in the source."""
    inside = f"{folder.strip('/')}/"
    files = {
        str(PurePosixPath(entry.name.removeprefix(inside)).with_suffix("")): entry
        for entry in source.pictures
        if entry.name.startswith(inside)
    }
    masks = {}
    for picture in source.pictures:
        name = PurePosixPath(picture.name).with_suffix("")
        mask = files.get(str(name)) or files.get(name.name)
        if mask is not None and not picture.name.startswith(inside):
            masks[picture.name] = mask
    source.pictures = [picture for picture in source.pictures if picture.name in masks]
    return masks


def face_mask(labels: np.ndarray, face: tuple[int, ...], glasses: int | None) -> np.ndarray:
    """Return a mask (H, W) uint8 of the face, 0 or 255, from class numbers (H, W) uint8.

    What the class `glasses` encloses, such as eyes behind lenses, is no face.
    """
    mask = np.isin(labels, face).astype(np.uint8) * 255
    worn = (labels == glasses).astype(np.uint8) if glasses is not None else np.zeros_like(mask)
    if worn.any():
        side = max(round(CLOSING * max(labels.shape)), 1) | 1
        closed = cv2.morphologyEx(worn, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
        outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, outlines, -1, 0, cv2.FILLED)
    return mask


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
