"""Read and write image files as numpy arrays.

This module alone opens image files, always with Pillow; OpenCV adds the lower bits of 16-bit images. Written images are
marked as synthetic: their XMP carries the IPTC property Digital Source Type (IPTC Photo Metadata Standard 2023.1,
section "Digital Source Type").
"""

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import cv2
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from fsframework.core.errors import UserError
from fsframework.media.colour_profile import from_srgb, profile_mode, to_srgb
from fsframework.media.optional_formats import OPTIONAL, missing_format, registered
from fsframework.media.photo_metadata import PhotoMetadata, photo_metadata
from fsframework.media.video_io import is_video
from fsframework.utils.files import replacing

MAX_PIXELS = 100_000_000  # of one image; larger ones are rejected before decoding
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")  # none runs an external program
SUFFIXES = frozenset(  # of files to try, lower case
    [".jpg", ".jpeg", ".png", ".apng", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jp2"]
).union([".pgm", ".ppm", ".pnm"], *(each.suffixes for each in OPTIONAL))
WRITABLE = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
DEEP = ("PNG", "TIFF")  # written formats that hold 16 bits per channel
MOVING = ("GIF", "WEBP", "PNG", "AVIF", "JXL")  # formats of animations

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
_STEPS = {  # the same transforms of arrays: transpose, then exchange top and bottom or left and right
    Image.Transpose.FLIP_LEFT_RIGHT: "h",
    Image.Transpose.ROTATE_180: "hv",
    Image.Transpose.FLIP_TOP_BOTTOM: "v",
    Image.Transpose.TRANSPOSE: "t",
    Image.Transpose.ROTATE_270: "th",
    Image.Transpose.TRANSVERSE: "thv",
    Image.Transpose.ROTATE_90: "tv",
}
GIF_XMP = b"\x21\xff\x0bXMP DataXMP"  # what precedes XMP in GIF (XMP Specification, part 3)
GIF_XMP_BYTES = 1 << 16  # of XMP that are searched
LARGE_CHANGE = 32  # levels
INCH = 0.0254  # metres
RGB_MODES = ("RGB", "RGBA", "RGBX", "P", "PA")  # of images that an RGB profile describes
_ORIENTATION = 0x0112  # the EXIF tag


Decoded = TypeVar("Decoded")


def media_in(folder: Path) -> list[Path]:
    """Return the paths of images and videos in a folder, at any depth, sorted; hidden files are left out.

    Files are recognised by their suffixes.
    """
    return [file for file in _files_in(folder) if file.suffix.lower() in SUFFIXES or is_video(file)]


def other_files_in(folder: Path) -> list[Path]:
    """Return the paths of a folder's files that `media_in` leaves out, except hidden ones."""
    return [file for file in _files_in(folder) if file.suffix.lower() not in SUFFIXES and not is_video(file)]


def _files_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]


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
    """An image and what a result keeps of it: colour profile, transparency, 16 bits per channel and EXIF."""

    frame: np.ndarray  # (H, W, 3) uint8 as of `read_image`
    pixels: np.ndarray | None = None  # (H, W, 3) uint8 or uint16 in the profile's colours; None: equal to `frame`
    alpha: np.ndarray | None = None  # (H, W) uint8 or uint16; None: opaque
    profile: bytes | None = None  # ICC, for RGB
    photo: PhotoMetadata | None = None

    def in_own_colours(self, image: np.ndarray, transparent: bool, deep: bool = False) -> np.ndarray:
        """Return a changed copy of `frame` in the image's own colours: where it is unchanged, the image's own pixels.

        Parameters
        ----------
        image:
            (H, W, 3) uint8.
        transparent:
            Whether the transparency is kept, or the result is composited on white.
        deep:
            Whether the result of a 16-bit image has 16 bits, too.

        Returns
        -------
        (H, W, 3), or with transparency (H, W, 4), uint8 or uint16.
        """
        if self.pixels is None:
            return image
        before, after = self.frame, image
        if self.profile is not None and profile_mode(self.profile) is not None:
            before, after = (from_srgb(each, self.profile) for each in (before, after))
        if self.alpha is not None and not transparent:
            return after
        scale = 257 if self.pixels.dtype == np.uint16 else 1  # of this image's levels
        # `frame` lacks colours outside of sRGB and those behind transparency. They are added again, except where a
        # large change has replaced the pixel's own colour.
        lost = self.pixels.astype(np.float32) - scale * before.astype(np.float32)
        change = np.abs(image.astype(np.int16) - self.frame).max(axis=2)
        share = np.clip(1 - change / LARGE_CHANGE, 0, 1)
        if self.alpha is not None:
            share[self.alpha < 255 * scale] = 1
        restored = np.rint(scale * after.astype(np.float32) + share[..., None] * lost).clip(0, 255 * scale)
        result: np.ndarray = restored.astype(self.pixels.dtype)
        if self.alpha is not None:
            result = np.dstack([result, self.alpha])
        return result if deep or scale == 1 else _eight_bits(result)


def read_target(
    path_or_file: str | Path | IO[bytes],
    name: str | None = None,
    max_pixels: int | None = None,
    private_metadata: bool = False,
) -> TargetImage:
    """Return an image with what a result keeps of it.

    Parameters and errors as of `read_image`. An animation is refused, too, because its other frames would be lost.
    Of EXIF the place, serial numbers, the owner's name and maker notes are left out, unless `private_metadata` is set.
    """
    shown = name or path_or_file

    def convert(image: Image.Image) -> TargetImage:
        if is_moving(image):
            remedy = "swap it by fsf swap or swap_video, or give one picture"
            if image.format == "JXL":
                remedy = "make GIF, WebP or APNG of it"
            raise UserError(f"{shown}: is a moving picture (animated {image.format}); {remedy}")
        deep = _sixteen_bits(path_or_file, image)
        target = target_of(image) if deep is None else _deep_target(image, deep)
        is_transposed = "t" in _steps(image)
        return replace(target, photo=photo_metadata(image, is_transposed, private_metadata))

    return _decoded(path_or_file, name, max_pixels, convert)


def is_moving(image: Image.Image) -> bool:
    """Return whether an open image is an animation."""
    return image.format in MOVING and bool(getattr(image, "is_animated", False))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Return values of 16 bits, scaled to 8 and rounded."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _sixteen_bits(path_or_file: str | Path | IO[bytes], image: Image.Image) -> np.ndarray | None:
    """Return the pixels of an open 16-bit image, upright, (H, W) or (H, W, 3 or 4) uint16; None for other images.

    Pillow reads the upper bits alone, unless the image is grey.
    """
    if image.format not in DEEP:
        return None
    depths = image.tag_v2.get(258, ()) if isinstance(image, TiffImageFile) else _content(path_or_file, 25)[24:]
    if set(depths) != {16}:
        return None
    content = np.frombuffer(_content(path_or_file), np.uint8)
    pixels: np.ndarray | None = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    channels = 4 if image.has_transparency_data else 1 if image.mode.startswith("I") else 3
    if pixels is None or pixels.dtype != np.uint16 or pixels.size != image.width * image.height * channels:
        return None
    if channels == 1:
        pixels = pixels.reshape(image.height, image.width)
    else:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA)
    return np.array(_turned(pixels, image))


def _content(path_or_file: str | Path | IO[bytes], count: int = -1) -> bytes:
    """Return the first bytes of a file, or all."""
    if isinstance(path_or_file, str | Path):
        with Path(path_or_file).open("rb") as file:
            return file.read(count)
    path_or_file.seek(0)
    return path_or_file.read(count)


def _turned(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return the pixels of an image, upright by its EXIF orientation."""
    for each in _steps(image):
        pixels = pixels.swapaxes(0, 1) if each == "t" else pixels[::-1] if each == "v" else pixels[:, ::-1]
    return pixels


def _deep_target(image: Image.Image, deep: np.ndarray) -> TargetImage:
    """Return the target of an open 16-bit image with these pixels."""
    upright = Image.fromarray(_eight_bits(deep))
    if deep.ndim == 2:
        target = target_of(upright)
        return replace(target, pixels=np.repeat(deep[:, :, None], 3, axis=2))
    upright.info["icc_profile"] = image.info.get("icc_profile")
    alpha = None if deep.shape[2] == 3 or (deep[..., 3] == 65535).all() else deep[..., 3]
    return replace(target_of(upright), pixels=deep[..., :3], alpha=alpha)


def target_of(image: Image.Image) -> TargetImage:
    """Return a decoded image with what a result keeps of it, with 8 bits per channel."""
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
        with opened(path_or_file) as image:
            check_size(image, name, max_pixels)
            image.load()
            return convert(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise _unreadable(path_or_file, name) from None
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


@contextmanager
def opened(path_or_file: str | Path | IO[bytes]) -> Iterator[Image.Image]:
    """Open an image with Pillow, in a format of `FORMATS` or of an installed extra; yield it."""
    # Pillow warns of large images, which are rejected by `check_size`, and of odd metadata, which are harmless.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path_or_file, formats=(*FORMATS, *registered())) as image:
            yield image


def _unreadable(path_or_file: str | Path | IO[bytes], name: str) -> UserError:
    """Return the error of a file in no format that can be read."""
    missing = missing_format(_content(path_or_file, 12))
    if missing is not None:
        library = missing.module.partition(".")[0].replace("_", "-")
        return UserError(f'{name}: {missing.title} needs {library}; try: pip install "fsframework[{missing.extra}]"')
    return UserError(f"{name}: is not a picture in a readable format; use {_formats()}")


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
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
        with opened(path) as image:
            return ".jp2" if image.format == "JPEG2000" else f".{str(image.format).lower()}"
    except Exception as error:  # as in read_image
        raise UserError(f"{path}: cannot be read: {_line(error)}; give a picture") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transform that turns an open image upright by its EXIF orientation; None if it is upright."""
    if image.format == "JXL":  # its decoder applies the codestream's orientation, which supersedes EXIF's
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block does not spoil the pixels
        return None


def _steps(image: Image.Image) -> str:
    """Return the transforms of `_STEPS` that turn an open image upright."""
    turn = _turn(image)
    return "" if turn is None else _STEPS[turn]


def _upright(image: Image.Image) -> Image.Image:
    """Return the image with its EXIF orientation applied."""
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


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
    names = (*FORMATS, *(each.title for each in OPTIONAL))
    return f"{', '.join(names[:-1])} or {names[-1]}"


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
        Its suffix selects the format: .jpg, .jpeg, .png, .webp, .tif or .tiff.
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
        The image of which `array` is a changed copy. Its colour profile is kept, its 16 bits per channel in PNG and
        TIFF, and its transparency unless the format is JPEG, in which transparent pixels are white. So are its EXIF
        and resolution.

    Raises
    ------
    UserError
        The suffix is unknown, the file cannot be written, or the image is too large for the format.
    """
    path = Path(path)
    kind = writable_format(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {array.shape} {array.dtype}")
    settings: dict[str, Any] = {"quality": quality} if kind in ("JPEG", "WEBP") else {}
    if kind == "WEBP" and lossless:
        settings = {"lossless": True, "quality": 20, "method": 1}  # 5 % larger than at full effort, six times as fast
    if kind == "JPEG":
        settings["subsampling"] = 0
    profile = None if target is None else target.profile
    photo = PhotoMetadata() if target is None or target.photo is None else target.photo
    if target is not None:
        array = target.in_own_colours(array, kind != "JPEG", kind in DEEP)
    if array.shape[2] == 4 and kind == "WEBP":
        settings["exact"] = True  # else pixels that do not show are changed
    with replacing(path) as temporary:
        try:
            if kind == "TIFF":
                _write_tiff(temporary, array, XMP if synthetic else None, profile, photo)
            elif array.dtype == np.uint16:
                temporary.write_bytes(_deep_png(array, XMP if synthetic else None, profile, photo))
            else:
                settings |= _mark(kind) if synthetic else {}
                settings |= {} if profile is None else {"icc_profile": profile}
                settings |= {} if photo.dpi is None else {"dpi": photo.dpi}
                if photo.has_exif or (photo.dpi is not None and kind == "WEBP"):  # WebP has no other resolution
                    settings["exif"] = photo.exif(array.shape[1], array.shape[0])
                Image.fromarray(array).save(temporary, format=kind, **settings)
        except ValueError as error:
            raise UserError(f"{path}: cannot be written as {kind}: {_line(error)}; try .png") from error
        if finish is not None:
            finish(temporary)


def _write_tiff(path: Path, array: np.ndarray, xmp: str | None, profile: bytes | None, photo: PhotoMetadata) -> None:
    """Write pixels (H, W, 3 or 4) uint8 or uint16 as TIFF."""
    settings = photo.tiff_arguments()
    if xmp is not None:
        settings["extratags"].append((700, "B", len(xmp.encode()), xmp.encode(), True))
    tifffile.imwrite(
        path,
        array,
        photometric="rgb",
        extrasamples=["unassalpha"] if array.shape[2] == 4 else None,
        compression="adobe_deflate",
        iccprofile=profile,
        metadata=None,
        software="",
        **settings,
    )
    photo.add_to_tiff(path, array.shape[1], array.shape[0])


def _deep_png(array: np.ndarray, xmp: str | None, profile: bytes | None, photo: PhotoMetadata) -> bytes:
    """Return pixels (H, W, 3 or 4) uint16 as PNG, which Pillow cannot write."""
    code = cv2.COLOR_RGB2BGR if array.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    content = cv2.imencode(".png", cv2.cvtColor(array, code))[1].tobytes()
    chunks = BytesIO()
    if profile is not None:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
    if xmp is not None:
        PngImagePlugin.putchunk(chunks, b"iTXt", b"XML:com.adobe.xmp" + bytes(5), xmp.encode())
    if photo.dpi is not None:
        per_metre = (round(each / INCH) for each in photo.dpi)
        PngImagePlugin.putchunk(chunks, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if photo.has_exif:
        exif = photo.exif(array.shape[1], array.shape[0]).tobytes()
        PngImagePlugin.putchunk(chunks, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    after_head = 33  # bytes: signature and IHDR
    return content[:after_head] + chunks.getvalue() + content[after_head:]


def writable_format(path: str | Path) -> str:
    """Return Pillow's name of the format of a suffix.

    Raises UserError if that format cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise UserError(
            f"{path}: pictures cannot be written as {suffix or 'a file without suffix'}; use .jpg, .png, .webp or .tif"
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
        with opened(path) as image:
            xmp = image.info.get("xmp", b"")
            if image.format == "GIF":  # Pillow does not read it
                xmp = Path(path).read_bytes().partition(GIF_XMP)[2][:GIF_XMP_BYTES]
    except Exception as error:  # as in read_image
        raise UserError(f"{path}: cannot be read: {_line(error)}; give a picture") from error
    return SOURCE_TYPE.encode() in (xmp.encode() if isinstance(xmp, str) else xmp)
