"""Images that are aligned whole-head crops already. They are only resized; landmarks are those of the template."""

import sys
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fsf_data.aligned_cache import Row
from fsf_data.shards import ShardIndex
from fsf_data.sources import ImageSource
from fsframework.core.errors import UserError
from fsframework.core.types import Sample
from fsframework.faces.align import template

NO_SQUARE = "is not square, as an aligned crop is"


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Return a square image (H, H, 3) uint8, resized to (size, size, 3)."""
    if image.shape[0] == size:
        return image
    smooth = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=smooth))


def as_they_are(source: ImageSource, size: int) -> Iterator[Row]:
    """Yield a row for each image of a source: the resized crop, or the reason why the image is unusable."""
    for picture in source.pictures:
        try:
            image = source.read(picture)
        except UserError as error:
            yield Row(picture.name, picture.person, note=str(error))
            continue
        if image.shape[0] != image.shape[1]:
            yield Row(picture.name, picture.person, note=NO_SQUARE)
            continue
        yield Row(picture.name, picture.person, resized(image, size), template(size))


class ShardedCrops(ShardIndex):
    """Aligned crops that are read from shards on access, without a cache of images.

    Parameters
    ----------
    folder:
        Folder of the index.
    size:
        Side of the crops in pixels.
    skip:
        Whether an unreadable image is replaced by the next one of the same person, or else of anybody. Otherwise it is
        an error.
    """

    def __init__(self, folder: Path, size: int, skip: bool) -> None:
        super().__init__(folder)
        self.crop_size, self.skip = size, skip
        self._reported: set[int] = set()  # indices of unreadable images that were reported

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.crop_size, self.skip)

    def __getitem__(self, index: int) -> Sample:
        """Return the crop at `index`.

        Raises
        ------
        UserError
            The image cannot be read and `skip` is false; the message names shard and member.
        """
        try:
            return self._sample(index)
        except UserError as error:
            if not self.skip:
                raise UserError(f"{error}; or go on without such pictures by --on-error skip") from error
            return self._stand_in(index, error)

    def _sample(self, index: int) -> Sample:
        image = self.read(index)
        if image.shape[0] != image.shape[1]:
            raise UserError(f"{self.place_of(index)}: {NO_SQUARE}")
        return Sample(
            resized(image, self.crop_size), self.names[index], self.person_of(index), template(self.crop_size)
        )

    def _stand_in(self, index: int, error: UserError) -> Sample:
        """Return the next readable image, of the same person if there is one."""
        same = np.flatnonzero(self.person == self.person[index])
        for candidates in (same, range(len(self))):
            start = bisect_right(candidates, index)
            for offset in range(len(candidates)):
                candidate = int(candidates[(start + offset) % len(candidates)])
                try:
                    sample = self._sample(candidate)
                except UserError:
                    continue
                if index not in self._reported:
                    self._reported.add(index)
                    print(f"note: {error}; {sample.name} stands in", file=sys.stderr, flush=True)
                return sample
        raise UserError(f"{error}; and no other picture can be read") from error
