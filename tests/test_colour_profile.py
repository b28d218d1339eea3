"""Colour profiles and transparency of targets are kept."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data
from swapping import FAST_MODEL, swap_file

from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import read_image, read_target, write_image
from fsframework.provenance.options import ProvenanceOptions

PRIMARIES = {"p3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), "srgb": ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))}
WHITE = (0.3127, 0.3290)
PLAIN = ProvenanceOptions(provenance=False)
SUFFIXES = (".png", ".webp")


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Return the matrix (3, 3) from linear RGB to XYZ."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    columns = np.stack([xyz(*point) for point in primaries], axis=1)
    return columns * np.linalg.solve(columns, xyz(*WHITE))


def icc(primaries: tuple[tuple[float, float], ...], gamma: float = 2.2) -> bytes:
    """Return an ICC 2.4 matrix profile, adapted to D50 by Bradford's matrix."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50, matrix = np.array([0.9642, 1, 0.8251]), to_xyz(primaries)
    white = matrix @ np.ones(3)
    matrix = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford @ matrix

    def xyz(value: np.ndarray) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(each * 65536)) for each in value)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, int(gamma * 256)) + bytes(2)
    text = b"test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": xyz(d50),
        **{name + b"XYZ": xyz(matrix[:, index]) for index, name in enumerate((b"r", b"g", b"b"))},
        **{name + b"TRC": curve for name in (b"r", b"g", b"b")},
    }
    start = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(padded))
        body += padded
    head = struct.pack(">I", start + len(body)) + b"lcms" + struct.pack(">I", 0x02400000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += b"".join(struct.pack(">i", round(each * 65536)) for each in d50)
    return head.ljust(128, b"\0") + table + body


P3 = icc(PRIMARIES["p3"])


def expected_srgb(pixels: np.ndarray) -> np.ndarray:
    """Return P3 pixels with gamma 2.2 in sRGB by IEC 61966-2-1, (..., 3) in 0..255."""
    gamma = int(2.2 * 256) / 256
    linear = (pixels / 255) ** gamma @ (np.linalg.inv(to_xyz(PRIMARIES["srgb"])) @ to_xyz(PRIMARIES["p3"])).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.fixture(scope="module")
def face_swapper() -> FaceSwapper:
    return FaceSwapper(FAST_MODEL)


def astronaut() -> np.ndarray:
    frame: np.ndarray = data.astronaut()[:300, 60:400]
    return np.ascontiguousarray(frame)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_colours_are_converted_from_the_profile_to_srgb(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", icc_profile=P3, lossless=True)
    read = read_image(tmp_path / f"a{suffix}")
    assert np.abs(read - expected_srgb(pixels)).max() < 2.5
    assert np.abs(read.astype(int) - pixels).max() > 20


@pytest.mark.parametrize("profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"broken"])
def test_srgb_and_damaged_profiles_change_no_pixel(tmp_path: Path, profile: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png", icc_profile=P3)  # does not fit the image
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png")[..., 0], pixels[..., 0])


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".jpg"])
def test_an_unchanged_copy_keeps_profile_and_pixels(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=P3)
    target = read_target(tmp_path / "a.png")
    write_image(tmp_path / f"b{suffix}", target.frame, quality=100, lossless=True, target=target)
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.info["icc_profile"] == P3
        difference = np.abs(np.array(written).astype(int) - pixels)
    assert difference.max() == 0 if suffix != ".jpg" else difference.mean() < 2


def test_a_swap_keeps_the_profile_and_looks_as_in_srgb(face_swapper: FaceSwapper, tmp_path: Path) -> None:
    srgb = ImageCms.createProfile("sRGB")
    (tmp_path / "p3.icc").write_bytes(P3)
    own = ImageCms.profileToProfile(Image.fromarray(astronaut()), srgb, str(tmp_path / "p3.icc"))
    assert own is not None
    own.save(tmp_path / "p3.png", icc_profile=P3)
    write_image(tmp_path / "srgb.png", astronaut(), synthetic=False)
    for name in ("p3", "srgb"):
        swap_file(
            face_swapper,
            tmp_path / "srgb.png",
            tmp_path / f"{name}.png",
            tmp_path / f"{name}-out.png",
            provenance=PLAIN,
        )
    with Image.open(tmp_path / "p3-out.png") as result:
        assert result.info["icc_profile"] == P3
        changed = (np.array(result) != np.array(own)).any(axis=2)
    assert 0.01 < changed.mean() < 0.4 and not changed[200:].any()
    in_p3, in_srgb = (read_image(tmp_path / f"{name}-out.png").astype(int) for name in ("p3", "srgb"))
    assert np.abs(in_p3 - in_srgb).mean() < 1


def test_cmyk_is_read_by_its_profile(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    Image.fromarray(pixels, "CMYK").save(tmp_path / "a.tif", icc_profile=P3)  # one for RGB does not fit
    plain = read_image(tmp_path / "a.tif")
    Image.fromarray(pixels, "CMYK").save(tmp_path / "b.tif")
    np.testing.assert_array_equal(plain, read_image(tmp_path / "b.tif"))


def cutout(profile: bytes | None = None) -> Image.Image:
    """Return a picture with opaque, half transparent and transparent pixels."""
    layer = Image.fromarray(astronaut())
    alpha = np.full(astronaut().shape[:2], 255, np.uint8)
    alpha[:, :20], alpha[:, 20:40] = 0, 128
    layer.putalpha(Image.fromarray(alpha))
    if profile is not None:
        layer.info["icc_profile"] = profile
    return layer


@pytest.mark.parametrize("profile", [None, P3])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_transparency_is_kept(tmp_path: Path, suffix: str, profile: bytes | None) -> None:
    cutout().save(tmp_path / "a.png", icc_profile=profile)
    target = read_target(tmp_path / "a.png")
    changed = target.frame.copy()
    changed[100:150, 100:150] = 30
    write_image(tmp_path / f"b{suffix}", changed, lossless=True, target=target)
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert written.mode == "RGBA"
        pixels, expected = np.array(written), np.array(cutout())
    expected[100:150, 100:150] = pixels[100:150, 100:150]
    np.testing.assert_array_equal(pixels, expected)
    assert np.abs(read_image(tmp_path / f"b{suffix}")[100:150, 100:150].astype(int) - 30).max() < 4


def test_jpeg_shows_white_where_the_target_is_transparent(tmp_path: Path) -> None:
    cutout().save(tmp_path / "a.png")
    target = read_target(tmp_path / "a.png")
    write_image(tmp_path / "b.jpg", target.frame, target=target)
    assert read_image(tmp_path / "b.jpg")[:, :12].min() > 245


def test_a_swap_keeps_transparency_and_what_does_not_show(face_swapper: FaceSwapper, tmp_path: Path) -> None:
    cutout().save(tmp_path / "a.png")
    write_image(tmp_path / "source.png", astronaut(), synthetic=False)
    swap_file(face_swapper, tmp_path / "source.png", tmp_path / "a.png", tmp_path / "b.png", provenance=PLAIN)
    with Image.open(tmp_path / "b.png") as result:
        pixels, own = np.array(result), np.array(cutout())
    np.testing.assert_array_equal(pixels[..., 3], own[..., 3])
    np.testing.assert_array_equal(pixels[:, :40], own[:, :40])
    assert (pixels != own).any(axis=2).mean() > 0.01
