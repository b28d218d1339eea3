"""Sources of occluders: drawn ones, or cut-outs in a folder. Both are deterministic for a random generator."""

import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fsf_occluders.composite import ANYWHERE, KINDS, Occluder, Spread, draw_occluder, trimmed
from fsframework.core.errors import UserError
from fsframework.media.image_io import FORMATS, MAX_PIXELS, SUFFIXES
from fsframework.utils.progress import progress

NATURAL = 0.62  # longest side of a cut-out from a folder, in units of the crop's side, at scale 1


class Drawn:
    """Drawn occluders, each drawn on first use with a separate seed, and cached.

    Parameters
    ----------
    mix:
        Relative frequency of each kind in `KINDS`.
    count:
        Approximate total number of different occluders.
    size:
        Side of the aligned crops in pixels.
    split:
        Split, "train" or "test", which have different occluders.
    """

    def __init__(self, mix: dict[str, float], count: int, size: int, split: str) -> None:
        self.kinds = [kind for kind, weight in mix.items() if weight > 0]
        weights = np.array([mix[kind] for kind in self.kinds])
        self.shares = weights / weights.sum()
        self.counts = np.maximum(np.rint(self.shares * count), 1).astype(int)
        self.size = size
        self.family = int(split == "test")
        self.kept: dict[tuple[str, int], Occluder] = {}

    def take(self, rng: np.random.Generator) -> tuple[Occluder, Spread]:
        """Return a random occluder and the distribution of its placement."""
        chosen = int(rng.choice(len(self.kinds), p=self.shares))
        key = (self.kinds[chosen], int(rng.integers(self.counts[chosen])))
        if key not in self.kept:
            seed = [self.family, list(KINDS).index(key[0]), key[1]]
            self.kept[key] = draw_occluder(key[0], np.random.default_rng(seed), self.size)
        return self.kept[key], KINDS[key[0]][1]


class Cutouts:
    """Images with transparency in a folder and its subfolders, read once and reduced to the crops' size.

    Parameters
    ----------
    folder:
        Folder of the images.
    count:
        Maximum number of images, evenly spaced over the sorted names.
    size:
        Side of the aligned crops in pixels.

    Raises
    ------
    UserError
        The path is no folder, has no images, or an image cannot be read or has no transparency.
    """

    def __init__(self, folder: Path, count: int, size: int) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder}: is not a folder; give one that holds cut-outs, such as PNG files")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not paths:
            raise UserError(f"{folder}: holds no pictures; give a folder of cut-outs, such as PNG files")
        some = np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))
        self.kept = []
        with progress("reading cut-outs", len(some), "pictures") as ticker:
            for number in some:
                self.kept.append(_reduced(paths[number], round(NATURAL * size)))
                ticker.advance()

    def take(self, rng: np.random.Generator) -> tuple[Occluder, Spread]:
        """Return a random occluder and the distribution of its placement."""
        return self.kept[int(rng.integers(len(self.kept)))], ANYWHERE


def read_rgba(path: Path) -> np.ndarray:
    """Return an image with transparency (H, W, 4) uint8, with EXIF orientation applied.

    Raises
    ------
    UserError
        The image cannot be read, is damaged, is too large, or has no transparency.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"{path}: has more than {MAX_PIXELS:,} pixels; make it smaller")
                if not image.has_transparency_data:
                    raise UserError(f"{path}: has no transparency; give cut-outs, or take it out of the folder")
                return np.array(ImageOps.exif_transpose(image).convert("RGBA"))
    except UserError:
        raise
    except Exception as error:  # decoders raise many exception types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as a picture: {reason}; repair it or take it out") from error


def _reduced(path: Path, longest: int) -> Occluder:
    """Return a cut-out with a longest side of `longest` pixels. Raises UserError as `read_rgba` does."""
    try:
        part = trimmed(read_rgba(path)).rgba
    except ValueError as error:
        raise UserError(f"{path}: {error}; take it out of the folder") from None
    scale = longest / max(part.shape[:2])
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    alpha = part[..., 3:].astype(np.float32) / 255
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(np.dstack([part[..., :3] * alpha, alpha]).astype(np.float32), size, interpolation=interpolation)
    colour = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
    rgba = np.clip(np.rint(np.dstack([colour, small[..., 3] * 255])), 0, 255).astype(np.uint8)
    return Occluder(rgba, np.array([size[0] - 1, size[1] - 1]) / 2)
