"""Convert images between their embedded colour profiles (ICC) and sRGB, with Pillow's ImageCms.

Networks see sRGB. Results are written in the colours of their targets.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.createProfile("sRGB")
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> Pillow's mode
INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.HIGHRESPRECALC


@lru_cache(8)
def profile_mode(profile: bytes) -> str | None:
    """Return the mode of the images that a profile describes; None for sRGB and for profiles that cannot be used."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES.get(opened.profile.xcolor_space.strip())
        if mode is None or (mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(opened)):
            return None
        _transform(profile, mode, True)
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged, or without the tables that are needed
        return None
    return mode


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image in the mode of its profile (`profile_mode`) as RGB in sRGB."""
    result = ImageCms.applyTransform(image, _transform(profile, image.mode, True))
    assert result is not None
    return result


def from_srgb(image: np.ndarray, profile: bytes) -> np.ndarray:
    """Return an image (H, W, 3) uint8 in the colours of an RGB profile; those outside of its gamut are clipped."""
    return np.array(ImageCms.applyTransform(Image.fromarray(image), _transform(profile, "RGB", False)))


@lru_cache(8)
def _transform(profile: bytes, mode: str, forward: bool) -> ImageCms.ImageCmsTransform:
    """Return the transform from a profile to sRGB, or, for RGB profiles, back. Raise PyCMSError if there is none."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if forward:
        return ImageCms.buildTransform(own, SRGB, mode, "RGB", INTENT, FLAGS)
    return ImageCms.buildTransform(SRGB, own, "RGB", "RGB", INTENT, FLAGS)
