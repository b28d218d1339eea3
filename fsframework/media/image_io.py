"""Read and write image files as numpy arrays.

This module alone opens image files, always with Pillow. Written images are marked as synthetic: their XMP carries the
IPTC property Digital Source Type (IPTC Photo Metadata Standard 2023.1, section "Digital Source Type").
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from fsframework.core.errors import UserError
from fsframework.media.colour_profile import from_srgb, profile_mode, to_srgb
from fsframework.media.video_io import is_video
from fsframework.utils.files import replacing

MAX_PIXELS = 100_000_000  # of one image; larger ones are rejected before decoding
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")  # none runs an external program
SUFFIXES = frozenset(  # of files to try, lower case
    [".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".jp2", ".avif"]
)
WRITABLE = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)

_TURNS = {  # EXIF orientation -> the transform to upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LARGE_CHANGE = 32  # levels
RGB_MODES = ("RGB", "RGBA", "RGBX", "P", "PA")  # of images that an RGB profile describes
_ORIENTATION = 0x0112  # the EXIF tag


Decoded = TypeVar("Decoded")


def media_in(folder: Path) -> list[Path]:
    """Return the paths of images and videos in a folder, at any depth, sorted; hidden files are left out.

    Files are recognised by their suffixes.
    """
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith("."))
    return [file for file in files if file.suffix.lower() in SUFFIXES or is_video(file)]


def read_image(
    path_or_file: str | Path | IO[bytes], name: str | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """Return an image, upright, (H, W, 3) uint8 RGB.

    EXIF orientation is applied. Transparent pixels are composited on white. Grey, palette and CMYK become RGB; 16-bit
    grey is scaled by 255/65535 and rounded. Of an animation the first frame is read. Colours are converted from the
    embedded profile to sRGB; a profile that is damaged or does not fit the image is ignored.

    Parameters
    ----------
    path_or_file:
        A path, or a seekable binary file.
    name:
        The name in error messages; by default the path.
    max_pixels:
        The limit of pixels, by default MAX_PIXELS; larger images are rejected before decoding.

    Raises
    ------
    UserError
        The file cannot be read, is no image, is damaged or incomplete, or has too many pixels.
    """
    return _decoded(path_or_file, name, max_pixels, to_rgb)


@dataclass(frozen=True, eq=False)
class TargetImage:
    """An image and what a result keeps of it: the colour profile and the transparency."""

    frame: np.ndarray  # (H, W, 3) uint8 as of `read_image`
    pixels: np.ndarray | None = None  # (H, W, 3) uint8 in the profile's colours; None: equal to `frame`
    alpha: np.ndarray | None = None  # (H, W) uint8; None: opaque
    profile: bytes | None = None  # ICC, for RGB

    def in_own_colours(self, image: np.ndarray, transparent: bool) -> np.ndarray:
        """Return a changed copy of `frame` in the image's own colours: where it is unchanged, the image's own pixels.

        `transparent` says whether the transparency is kept, or the result is composited on white.
        """
        if self.pixels is None:
            return image
        before, after = self.frame, image
        if self.profile is not None and profile_mode(self.profile) is not None:
            before, after = (from_srgb(each, self.profile) for each in (before, after))
        if self.alpha is not None and not transparent:
            return after
        # `frame` lacks colours outside of sRGB and those behind transparency. They are added again, except where a
        # large change has replaced the pixel's own colour.
        lost = self.pixels.astype(np.float32) - before
        change = np.abs(image.astype(np.int16) - self.frame).max(axis=2)
        share = np.clip(1 - change / LARGE_CHANGE, 0, 1)
        if self.alpha is not None:
            share[self.alpha < 255] = 1
        restored: np.ndarray = np.rint(after + share[..., None] * lost).clip(0, 255).astype(np.uint8)
        return restored


def read_target(
    path_or_file: str | Path | IO[bytes], name: str | None = None, max_pixels: int | None = None
) -> TargetImage:
    """Return an image with what a result keeps of it; parameters and errors as of `read_image`."""
    return _decoded(path_or_file, name, max_pixels, _target)


def _target(image: Image.Image) -> TargetImage:
    profile = image.info.get("icc_profile")
    frame = to_rgb(image)
    upright = _upright(image)
    alpha = None
    if image.has_transparency_data:
        alpha = np.array(upright.convert("RGBA").getchannel("A"))
        alpha = None if (alpha == 255).all() else alpha
    if not isinstance(profile, bytes) or image.mode not in RGB_MODES:
        profile = None
    converted = profile is not None and profile_mode(profile) is not None
    own = np.array(upright.convert("RGBA").convert("RGB")) if converted or alpha is not None else None
    return TargetImage(frame, own, alpha, profile)


def read_labels(path_or_file: str | Path | IO[bytes], name: str | None = None) -> np.ndarray:
    """Return the values of a grey or palette image, upright, (H, W) uint8, such as class numbers of a segmentation.

    Raises UserError as `read_image`, or if the image has colours or more than 8 bits.
    """
    return _decoded(path_or_file, name, None, _labels)


def _labels(image: Image.Image) -> np.ndarray:
    if image.mode not in ("1", "L", "P"):
        raise ValueError(f"it holds colours or wide numbers (mode {image.mode}), not 8-bit class numbers")
    return np.array(_upright(image), dtype=np.uint8)


def _decoded(
    path_or_file: str | Path | IO[bytes],
    name: str | None,
    max_pixels: int | None,
    convert: Callable[[Image.Image], Decoded],
) -> Decoded:
    """Return `convert(image)` of a decoded file; parameters and errors as of `read_image`."""
    name = name or (str(path_or_file) if isinstance(path_or_file, str | Path) else "picture")
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    try:
        # Pillow warns of large images, which are rejected below, and of odd metadata, which are harmless.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path_or_file, formats=FORMATS) as image:
                _check_size(image, name, max_pixels)
                image.load()
                return convert(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{name}: is not a picture in a readable format; use {_formats()}") from None
    except Image.DecompressionBombError:
        raise UserError(f"{name}: has more than {max_pixels:,} pixels; make it smaller") from None
    except IsADirectoryError:
        raise UserError(f"{name}: is a folder; give a picture") from None
    except OSError as error:
        # Errors of the operating system have a number, errors of decoders do not.
        advice = "check the path" if error.errno else "it is damaged or incomplete"
        raise UserError(f"{name}: cannot be read: {error.strerror or _line(error)}; {advice}") from error
    except Exception as error:  # decoders raise errors of all types on damaged files
        raise UserError(f"{name}: cannot be read: {_line(error)}; it is damaged or in an unusual format") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Raise UserError if an image has no or too many pixels."""
    width, height = image.size
    if width * height > max_pixels:
        raise UserError(f"{name}: has {width:,} x {height:,} pixels, more than {max_pixels:,}; make it smaller")
    if width == 0 or height == 0:
        raise UserError(f"{name}: has no pixels; give another picture")


def usual_suffix(path: Path) -> str:
    """Return the suffix of an image's format, such as .jpeg, independent of its name.

    Raises UserError if the file is no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return ".jp2" if image.format == "JPEG2000" else f".{str(image.format).lower()}"
    except Exception as error:  # as in read_image
        raise UserError(f"{path}: cannot be read: {_line(error)}; give a picture") from error


def _upright(image: Image.Image) -> Image.Image:
    """Return the image with its EXIF orientation applied."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return image
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return a PIL image as `read_image` does: upright, (H, W, 3) uint8 RGB. Raise ValueError for other ranges."""
    image = _upright(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # I;16 and its byte orders, and I, which Pillow uses for 16 bits too
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        grey8 = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey8[:, :, None], 3, axis=2)
    image = _in_srgb(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        background = Image.new("RGBA", layer.size, "white")
        return np.array(Image.alpha_composite(background, layer).convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return an image converted from its profile to sRGB, or the image itself if it has none that can be used."""
    profile = image.info.get("icc_profile")
    mode = profile_mode(profile) if isinstance(profile, bytes) else None
    described = "RGB" if image.mode in RGB_MODES else image.mode.removesuffix("A")  # without transparency
    if profile is None or mode is None or mode != described:
        return image
    if not image.has_transparency_data:
        return to_srgb(image if image.mode == mode else image.convert(mode), profile)
    layer = image.convert("RGBA")
    result = to_srgb(layer.convert(mode), profile)
    result.putalpha(layer.getchannel("A"))
    return result


def _line(error: Exception) -> str:
    """Return an error's message as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _formats() -> str:
    """Return the names of the readable formats."""
    return f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def write_image(
    path: str | Path,
    array: np.ndarray,
    quality: int = 95,
    synthetic: bool = True,
    lossless: bool = False,
    finish: Callable[[Path], None] | None = None,
    target: TargetImage | None = None,
) -> None:
    """Write an image atomically: a crash leaves the old file or the new one.

    Parameters
    ----------
    path:
        Its suffix selects the format: .jpg, .jpeg, .png or .webp.
    array:
        (H, W, 3) uint8 RGB.
    quality:
        1..100, for JPEG and WebP. JPEG keeps colour at full resolution.
    synthetic:
        Mark the file as a composite with trained algorithmic media (see `is_marked`).
    lossless:
        Store every pixel exactly in WebP, as in PNG; JPEG cannot.
    finish:
        Called with the path of the temporary file before it is renamed; it may change the file.
    target:
        The image of which `array` is a changed copy. Its colour profile is kept, and its transparency unless the format
        is JPEG, in which transparent pixels are white.

    Raises
    ------
    UserError
        The suffix is unknown, the file cannot be written, or the image is too large for the format.
    """
    path = Path(path)
    kind = writable_format(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {array.shape} {array.dtype}")
    settings: dict[str, Any] = {} if kind == "PNG" else {"quality": quality}
    if kind == "WEBP" and lossless:
        settings = {"lossless": True, "quality": 20, "method": 1}  # 5 % larger than at full effort, six times as fast
    if kind == "JPEG":
        settings["subsampling"] = 0
    if synthetic:
        settings.update(_mark(kind))
    if target is not None:
        array = target.in_own_colours(array, transparent=kind != "JPEG")
        if target.profile is not None:
            settings["icc_profile"] = target.profile
        if target.alpha is not None and kind != "JPEG":
            array = np.dstack([array, target.alpha])
            settings |= {"exact": True} if kind == "WEBP" else {}  # else pixels that do not show are changed
    with replacing(path) as temporary:
        try:
            Image.fromarray(array).save(temporary, format=kind, **settings)
        except ValueError as error:
            raise UserError(f"{path}: cannot be written as {kind}: {_line(error)}; try .png") from error
        if finish is not None:
            finish(temporary)


def writable_format(path: str | Path) -> str:
    """Return Pillow's name of the format of a suffix.

    Raises UserError if that format cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise UserError(
            f"{path}: pictures cannot be written as {suffix or 'a file without suffix'}; use .jpg, .png or .webp"
        )
    return WRITABLE[suffix]


def _mark(kind: str) -> dict[str, Any]:
    """Return Pillow's arguments that write the XMP of a synthetic image."""
    if kind != "PNG":
        return {"xmp": XMP.encode()}
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", XMP)
    return {"pnginfo": chunks}


def is_marked(path: str | Path) -> bool:
    """Return whether an image's XMP marks it as a composite with trained algorithmic media.

    Raises
    ------
    UserError
        The file cannot be read, or is no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                xmp = image.info.get("xmp", b"")
    except Exception as error:  # as in read_image
        raise UserError(f"{path}: cannot be read: {_line(error)}; give a picture") from error
    return SOURCE_TYPE.encode() in (xmp.encode() if isinstance(xmp, str) else xmp)
