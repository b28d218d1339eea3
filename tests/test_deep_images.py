"""16 bits per channel are kept away from swapped faces, in PNG and TIFF."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from swapping import swap_file
from test_colour_profile import P3

from fsframework.data.samples import portrait, somebody
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import TargetImage, is_marked, read_image, read_target, write_image
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify

PLAIN = ProvenanceOptions(provenance=False)
SIDE = 12  # pixels of a corner without a face


def deep(channels: int = 3) -> np.ndarray:
    """A portrait (H, W, channels) uint16 with random lower bits; alpha falls from left to right."""
    picture = cv2.resize(portrait(), (256, 256), interpolation=cv2.INTER_AREA).astype(np.uint16)
    values = picture * 256 + np.random.default_rng(0).integers(0, 256, picture.shape).astype(np.uint16)
    if channels == 1:
        return values[..., 1]
    alpha = np.linspace(65535, 300, 256).round().astype(np.uint16)
    return values if channels == 3 else np.dstack([values, np.tile(alpha, (256, 1))])


def save(file: Path, pixels: np.ndarray) -> Path:
    """Write pixels with OpenCV or tifffile, which this project's PNG reader and TIFF writer are not compared with."""
    if file.suffix == ".png":
        code = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[pixels.shape[2] if pixels.ndim == 3 else 2]
        file.write_bytes(cv2.imencode(".png", pixels if code is None else cv2.cvtColor(pixels, code))[1].tobytes())
    else:
        kind = "minisblack" if pixels.ndim == 2 else "rgb"
        extra = ["unassalpha"] if pixels.shape[-1] == 4 else None
        tifffile.imwrite(file, pixels, photometric=kind, extrasamples=extra)
    return file


def load(file: Path) -> np.ndarray:
    """The pixels of a file, with all their bits."""
    if file.suffix != ".png":
        return np.asarray(tifffile.imread(file))
    pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_three_passes_keep_every_bit(converter: FaceSwapper, tmp_path: Path, suffix: str, channels: int) -> None:
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    original = deep(channels)
    files = [save(tmp_path / f"0{suffix}", original), *(tmp_path / f"{number}{suffix}" for number in (1, 2, 3))]
    for before, after in pairwise(files):
        swap_file(converter, tmp_path / "source.png", before, after, provenance=PLAIN)
    result = load(files[-1])
    assert result.dtype == np.uint16 and is_marked(files[-1])
    expected = original[..., None].repeat(3, axis=2) if channels == 1 else original
    for rows, columns in ((slice(SIDE), slice(None)), (slice(None), slice(SIDE)), (slice(-SIDE, None), slice(None))):
        np.testing.assert_array_equal(result[rows, columns], expected[rows, columns])
    assert np.abs(result.astype(int) - expected)[30:75, 90:130].mean() > 1000  # a swapped face


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_results_are_signed(converter: FaceSwapper, tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    target = save(tmp_path / f"target{suffix}", deep())
    swap_file(converter, tmp_path / "source.png", target, tmp_path / f"o{suffix}")
    report = verify(tmp_path / f"o{suffix}")
    assert report.verdict == "intact" and report.xmp and report.watermark is not None
    corner = load(tmp_path / f"o{suffix}")[:SIDE].astype(int)
    assert 0 < np.abs(corner - deep()[:SIDE]).mean() < 3 * 257  # the watermark
    assert len(np.unique(corner % 257)) > 200  # and the bits below it


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_other_formats_get_eight_bits(tmp_path: Path, suffix: str) -> None:
    target = read_target(save(tmp_path / "in.png", deep()))
    write_image(tmp_path / f"o{suffix}", target.frame, target=target, lossless=True, quality=100)
    expected = np.rint(deep() / 257)
    assert np.abs(read_image(tmp_path / f"o{suffix}") - expected).mean() < (1.5 if suffix == ".jpg" else 1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bits_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    pixels = deep()[:200]
    content = save(tmp_path / "in.png", pixels).read_bytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = io.BytesIO()
    eight = Image.fromarray((pixels >> 8).astype(np.uint8))
    eight.save(plain, "PNG", exif=exif)
    at = plain.getvalue().index(b"eXIf") - 4
    chunk = plain.getvalue()[at : at + 12 + int.from_bytes(plain.getvalue()[at : at + 4], "big")]
    (tmp_path / "in.png").write_bytes(content[:33] + chunk + content[33:])
    target = read_target(tmp_path / "in.png")
    plain.seek(0)
    assert target.pixels is not None
    np.testing.assert_array_equal(target.pixels >> 8, read_image(plain))


def test_profiles_of_deep_images_are_kept(tmp_path: Path) -> None:
    content = save(tmp_path / "in.png", deep()).read_bytes()
    plain = io.BytesIO()
    Image.fromarray(portrait()).save(plain, "PNG", icc_profile=P3)
    at = plain.getvalue().index(b"iCCP") - 4
    chunk = plain.getvalue()[at : at + 12 + int.from_bytes(plain.getvalue()[at : at + 4], "big")]
    (tmp_path / "in.png").write_bytes(content[:33] + chunk + content[33:])
    target = read_target(tmp_path / "in.png")
    for name in ("o.png", "o.tiff"):
        write_image(tmp_path / name, target.frame, target=target)
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == P3
        np.testing.assert_array_equal(load(tmp_path / name), deep())


def test_tiff_of_eight_bits(tmp_path: Path) -> None:
    pixels = np.dstack([portrait(), np.full(portrait().shape[:2], 200, np.uint8)])
    Image.fromarray(pixels).save(tmp_path / "in.png")
    target = read_target(tmp_path / "in.png")
    write_image(tmp_path / "o.tif", target.frame, target=target)
    with Image.open(tmp_path / "o.tif") as image:
        np.testing.assert_array_equal(np.array(image), pixels)
    assert is_marked(tmp_path / "o.tif") and isinstance(read_target(tmp_path / "o.tif"), TargetImage)


def test_depths_that_cannot_be_read_are_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    tifffile.imwrite(tmp_path / "in.tif", np.ones((40, 40), np.float32))
    with expect_error(f"{tmp_path / 'in.tif'}: "):
        read_target(tmp_path / "in.tif")
