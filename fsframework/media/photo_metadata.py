"""Keep EXIF and resolution of photographs, without places, device numbers and thumbnails (CIPA DC-008, Exif 3.0).

Tags are kept by lists, so that unknown ones, which may show a place or a person, are left out.
"""

import math
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile
from PIL import ExifTags, Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

MAIN = frozenset(  # tags of the first directory that are kept
    [Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright]
).union([Base.Rating, Base.RatingPercent, Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject])
PRIVATE_MAIN = frozenset([Base.HostComputer, Base.CameraSerialNumber])
PRIVATE = frozenset(  # of Exif's directory
    [Base.MakerNote, Base.CameraOwnerName, Base.BodySerialNumber, Base.LensSerialNumber, Base.ImageUniqueID]
).union([Base.DeviceSettingDescription])
STRUCTURE = frozenset(  # of Exif's directory: what describes the stored pixels, which are others now
    [Base.ComponentsConfiguration, Base.CompressedBitsPerPixel, Base.ExifInteroperabilityOffset]
).union([Base.ExifImageWidth, Base.ExifImageHeight, Base.SubjectLocation, Base.RelatedSoundFile, 0x9214])
DNG = 0xC000  # the first tag of raw pictures
INCH = 2  # resolution unit
INCH_PER_UNIT = {2: 1.0, 3: 1 / 2.54}  # inch, centimetre
MOST_DPI = 100_000.0


@dataclass(frozen=True, eq=False)
class PhotoMetadata:
    """EXIF tags of an upright picture by their numbers, and its resolution."""

    main: dict[int, Any] = field(default_factory=dict)  # of the first directory
    details: dict[int, Any] = field(default_factory=dict)  # of Exif's directory
    place: dict[int, Any] = field(default_factory=dict)  # of GPS' directory
    dpi: tuple[float, float] | None = None  # across and down

    @property
    def has_exif(self) -> bool:
        """Return whether there are tags besides the resolution."""
        return bool(self.main or self.details or self.place)

    def exif(self, width: int, height: int) -> Image.Exif:
        """Return the EXIF of an upright picture of so many pixels."""
        exif = Image.Exif()
        for tag, value in self.main.items():  # Pillow reads texts as Latin-1, whatever they are, and writes ASCII
            exif[tag] = value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value
        if self.dpi is not None:
            exif[Base.XResolution], exif[Base.YResolution] = self.dpi
            exif[Base.ResolutionUnit] = INCH
        exif[Base.Orientation] = 1
        for tag, values in self._directories(width, height).items():
            exif.get_ifd(tag).update(values)
        return exif

    def _directories(self, width: int, height: int) -> dict[int, dict[int, Any]]:
        """Return the directories below the first one, by the tags that point to them."""
        found: dict[int, dict[int, Any]] = {}
        if self.details:
            found[IFD.Exif] = {**self.details, Base.ExifImageWidth: width, Base.ExifImageHeight: height}
        if self.place:
            found[IFD.GPSInfo] = self.place
        return found

    def tiff_arguments(self) -> dict[str, Any]:
        """Return the arguments `resolution` and `extratags` of tifffile, without directories (see `add_to_tiff`)."""
        tags: list[tuple[int, str, int, Any, bool]] = []
        for tag, value in self.main.items():
            if isinstance(value, str):
                text = value.encode("latin-1") + b"\0"
                tags.append((tag, "s", len(text), text, True))
            elif isinstance(value, int):
                tags.append((tag, "H", 1, value, True))
            else:
                content = bytes(value)
                tags.append((tag, "B", len(content), content, True))
        # tifffile writes no pointers to directories, so that tags beside them take their places for now.
        tags += [(tag + 1, "I", 1, 0, True) for tag in self._directories(0, 0)]
        resolution = {} if self.dpi is None else {"resolution": self.dpi, "resolutionunit": INCH}
        return {**resolution, "extratags": tags}

    def add_to_tiff(self, path: Path, width: int, height: int) -> None:
        """Append the directories of EXIF to a TIFF file that was written with `tiff_arguments`."""
        for tag, values in self._directories(width, height).items():
            directory = ImageFileDirectory_v2(b"II*\0\x08\0\0\0", group=tag)
            directory.update(values)
            with tifffile.TiffFile(path) as tiff:
                entry = tiff.pages.first.tags[tag + 1].offset
            with path.open("r+b") as file:
                start = file.seek(0, 2)
                start += file.write(bytes(start % 2))  # directories begin at even places
                file.write(directory.tobytes(start))
                file.seek(entry)
                file.write(struct.pack("<HHII", tag, 4, 1, start))


def photo_metadata(image: Image.Image, is_transposed: bool, private: bool = False) -> PhotoMetadata:
    """Return what a result keeps of an open image's EXIF and resolution; damaged tags are left out.

    Parameters
    ----------
    image:
        The image.
    is_transposed:
        Whether its width becomes the height of the upright image.
    private:
        Keep the place, serial numbers, the owner's name and maker notes, too.
    """
    dpi = image.info.get("dpi")
    details: dict[int, Any] = {}
    place: dict[int, Any] = {}
    main: dict[int, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged tags
        try:
            exif = image.getexif()
            details = exif.get_ifd(IFD.Exif)
            place = exif.get_ifd(IFD.GPSInfo) if private else {}
            main = {tag: exif[tag] for tag in (MAIN | PRIVATE_MAIN if private else MAIN) if tag in exif}
            unit = INCH_PER_UNIT[exif.get(Base.ResolutionUnit, INCH)]
            dpi = dpi or [float(exif[tag]) / unit for tag in (Base.XResolution, Base.YResolution)]
        except Exception:  # a damaged or missing block does not spoil the pixels
            pass
        named = {
            tag: value
            for tag, value in details.items()
            if tag in ExifTags.TAGS and tag < DNG and tag not in STRUCTURE and (private or tag not in PRIVATE)
        }
        return PhotoMetadata(
            _writable(main, 0),
            _writable(named, IFD.Exif),
            _writable(place, IFD.GPSInfo),
            _dpi(dpi, is_transposed),
        )


def _writable(values: dict[int, Any], directory: int) -> dict[int, Any]:
    """Return those tags of a directory, 0 for the first, that Pillow can write."""
    kept = {}
    for tag, value in sorted(values.items()):
        trial = Image.Exif()
        (trial.get_ifd(directory) if directory else trial)[tag] = value
        try:
            trial.tobytes()
            if not directory and not isinstance(value, str | int):
                bytes(value)
        except Exception:  # values of other types than the tag's
            continue
        kept[tag] = value
    return kept


def _dpi(value: Any, is_transposed: bool) -> tuple[float, float] | None:
    """Return a resolution of Pillow's, across and down in the upright image; None if it is missing or absurd."""
    try:
        across, down = (float(each) for each in value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(each) and 0 < each <= MOST_DPI for each in (across, down)):
        return None
    return (down, across) if is_transposed else (across, down)
