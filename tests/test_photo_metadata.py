"""EXIF and resolution of pictures are kept, without thumbnails, places, and numbers of devices."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.ExifTags import IFD, Base
from skimage import data
from swapping import FAST_MODEL

from fsframework import verify
from fsframework.api.swapping import load_swapper
from fsframework.cli.main import fsf
from fsframework.media.image_io import is_marked, read_image, read_target, write_image
from fsframework.media.photo_metadata import photo_metadata

SUFFIXES = (".jpg", ".png", ".webp", ".tif")
MAIN: dict[int, Any] = {
    Base.ImageDescription: "A portrait",
    Base.Make: "Maker",
    Base.Model: "Model 1",
    Base.Software: "Editor 2",
    Base.DateTime: "2024:01:02 03:04:05",
    Base.Artist: "Ann Ä".encode().decode("latin-1"),  # as Pillow reads texts
    Base.Copyright: "(c) Ann",
    Base.Rating: 4,
    Base.XPTitle: "Title".encode("utf-16-le"),
}
DETAILS: dict[int, Any] = {
    Base.DateTimeOriginal: "2023:01:02 03:04:05",
    Base.OffsetTimeOriginal: "+01:00",
    Base.ISOSpeedRatings: 200,
    Base.LensModel: "50 mm",
    Base.UserComment: b"ASCII\0\0\0hello",
    Base.ColorSpace: 1,
}
PRIVATE: dict[int, Any] = {
    Base.CameraOwnerName: "Owner",
    Base.BodySerialNumber: "BODY-77",
    Base.LensSerialNumber: "LENS-77",
    Base.MakerNote: b"maker 77",
    Base.ImageUniqueID: "unique 77",
}
PLACE = {1: "N", 2: (48.0, 8.0, 15.0), 3: "E", 4: (11.0, 34.0, 31.0)}
THUMBNAIL = b"\xff\xd8 the original face \xff\xd9"


def pixels() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:300, 60:400])


def exif(orientation: int = 1) -> bytes:
    """Return EXIF with everything that a camera writes, and a thumbnail."""
    tags = Image.Exif()
    tags.update({**MAIN, Base.Artist: "Ann Ä".encode()})
    tags[Base.Orientation], tags[Base.HostComputer] = orientation, "host 77"
    tags.get_ifd(IFD.Exif).update({**DETAILS, **PRIVATE, Base.ExifImageWidth: 9, Base.SubjectLocation: (3, 4)})
    tags.get_ifd(IFD.GPSInfo).update(PLACE)
    content = bytearray(tags.tobytes().removeprefix(b"Exif\0\0"))
    content += bytes(len(content) % 2)
    (count,) = struct.unpack_from(">H", content, 8)
    struct.pack_into(">I", content, 10 + 12 * count, len(content))  # the next directory
    end = len(content) + 2 + 3 * 12 + 4
    entries = [(0x0103, 3, 1, 6 << 16), (0x0201, 4, 1, end), (0x0202, 4, 1, len(THUMBNAIL))]
    content += struct.pack(">H", 3) + b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4)
    return b"Exif\0\0" + bytes(content) + THUMBNAIL


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A JPEG picture of 300 dpi across and 200 dpi down."""
    file = tmp_path / "photograph.jpg"
    Image.fromarray(pixels()).save(file, exif=exif(), dpi=(300, 200), quality=95)
    return file


def check(file: Path, private: bool = False, dpi: tuple[float, float] = (300, 200)) -> None:
    """Check what a result says of itself."""
    with Image.open(file) as image:
        image.load()
        tags = image.getexif()
        details, place = tags.get_ifd(IFD.Exif), tags.get_ifd(IFD.GPSInfo)
        named = tags.get(Base.HostComputer)
        assert {tag: tags.get(tag) for tag in MAIN if tag != Base.XPTitle} == {
            tag: value for tag, value in MAIN.items() if tag != Base.XPTitle
        }
        assert bytes(tags[Base.XPTitle]) == MAIN[Base.XPTitle]
        assert {tag: details.get(tag) for tag in DETAILS} == DETAILS
        size = (details[Base.ExifImageWidth], details[Base.ExifImageHeight])
        assert size == image.size and Base.SubjectLocation not in details
        assert tags.get(Base.Orientation, 1) == 1 and not tags.get_ifd(IFD.IFD1)
        resolution = image.info.get("dpi") or (tags[Base.XResolution], tags[Base.YResolution])
        assert [float(each) for each in resolution] == pytest.approx(dpi, rel=1e-3)
        kept = {tag: details.get(tag) for tag in PRIVATE}
        assert (kept, place, named) == ((PRIVATE, PLACE, "host 77") if private else (dict.fromkeys(PRIVATE), {}, None))
    content = file.read_bytes()
    assert b"the original face" not in content and (b"77" in content) >= private
    assert is_marked(file)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tags_and_resolution_are_kept(photograph: Path, suffix: str, private: bool) -> None:
    with Image.open(photograph) as image:  # what is to be removed is there
        assert image.getexif().get_ifd(IFD.IFD1)[0x0202] == len(THUMBNAIL)
    target = read_target(photograph, private_metadata=private)
    first = photograph.with_name(f"first{suffix}")
    write_image(first, target.frame, target=target, lossless=True)
    check(first, private)
    second = photograph.with_name(f"second{suffix}")
    again = read_target(first, private_metadata=private)
    write_image(second, again.frame, target=again, lossless=True)
    check(second, private)
    np.testing.assert_array_equal(again.frame, read_image(first))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_tags_of_16_bits_are_kept(photograph: Path, suffix: str) -> None:
    deep = photograph.with_name("deep.png")
    cv2.imwrite(str(deep), pixels().astype(np.uint16)[..., ::-1] * 257)
    target = replace(read_target(deep), photo=read_target(photograph).photo)
    out = photograph.with_name(f"out{suffix}")
    write_image(out, target.frame, target=target)
    check(out)
    written = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert written is not None and written.dtype == np.uint16


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_upright_and_its_resolution_turns(photograph: Path, orientation: int) -> None:
    Image.fromarray(pixels()).save(photograph, exif=exif(orientation), dpi=(300, 200))
    out = photograph.with_name("out.jpg")
    target = read_target(photograph)
    write_image(out, target.frame, target=target)
    is_transposed = orientation > 4
    check(out, dpi=(200, 300) if is_transposed else (300, 200))
    assert read_image(out).shape[:2] == (pixels().shape[1::-1] if is_transposed else pixels().shape[:2])


def test_a_picture_without_tags_gets_none(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    target = read_target(tmp_path / "a.png")
    for suffix in SUFFIXES:
        write_image(tmp_path / f"o{suffix}", target.frame, target=target)
        write_image(tmp_path / f"p{suffix}", target.frame)
        assert (tmp_path / f"o{suffix}").read_bytes() == (tmp_path / f"p{suffix}").read_bytes()


@pytest.mark.parametrize("seed", range(40))
def test_damaged_tags_do_no_harm(photograph: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(exif())
    for place in rng.integers(6, len(content), 1 + seed):
        content[place] = rng.integers(256)
    Image.fromarray(pixels()).save(photograph, exif=bytes(content[: -seed or None]))
    target = read_target(photograph, private_metadata=True)
    for suffix in SUFFIXES:
        out = photograph.with_name(f"out{suffix}")
        write_image(out, target.frame, target=target)
        assert read_image(out).shape == target.frame.shape and is_marked(out)


@pytest.mark.parametrize(("unit", "expected"), [(2, (100, 50)), (3, (254, 127)), (1, None), (9, None)])
def test_the_resolution_of_exif_has_a_unit(tmp_path: Path, unit: int, expected: tuple[int, int] | None) -> None:
    tags = Image.Exif()
    tags[Base.XResolution], tags[Base.YResolution], tags[Base.ResolutionUnit] = 100.0, 50.0, unit
    Image.fromarray(pixels()).save(tmp_path / "a.webp", exif=tags)
    photo = read_target(tmp_path / "a.webp").photo
    assert photo is not None and photo.dpi == (expected and pytest.approx(expected))


@pytest.mark.parametrize("dpi", [None, (0, 0), (float("nan"), 1), (1e9, 1e9), ("a", "b"), 3])
def test_absurd_resolutions_are_left_out(dpi: object) -> None:
    image = Image.fromarray(pixels())
    image.info["dpi"] = dpi
    assert photo_metadata(image, False).dpi is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_signed_swap_keeps_tags(photograph: Path, suffix: str) -> None:
    source, out = photograph.with_name("source.png"), photograph.with_name(f"out{suffix}")
    Image.fromarray(pixels()).save(source)
    words = ["swap", str(source), str(photograph), str(out), "--model", FAST_MODEL, "--device", "cpu"]
    result = CliRunner().invoke(fsf, words)
    assert result.exit_code == 0, result.output
    check(out)
    assert verify(out).verdict == "intact"
    private = CliRunner().invoke(fsf, [*words, "--private-metadata", "--overwrite"])
    assert private.exit_code == 0, private.output
    check(out, private=True)
    assert verify(out).verdict == "intact"


def test_python_keeps_tags(photograph: Path, tmp_path: Path) -> None:
    swapper = load_swapper(FAST_MODEL, "cpu", "torch")
    swapper.swap(pixels(), photograph).save(tmp_path / "a.jpg")
    check(tmp_path / "a.jpg")
    swapper.swap(pixels(), photograph, private_metadata=True).save(tmp_path / "b.jpg")
    check(tmp_path / "b.jpg", private=True)
