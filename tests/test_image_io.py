"""Image files: what is read, what is refused, what is written."""

import io
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fsframework.core.errors import UserError
from fsframework.media import image_io
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.media.tensor import keep_grey, swap_images, to_images, to_tensor

TURNS = {  # EXIF orientation -> how a camera that is held so stores an upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


@pytest.fixture
def picture() -> np.ndarray:
    """(12, 17, 3), no two pixels equal."""
    return np.random.default_rng(0).permutation(12 * 17 * 3).astype(np.uint8).reshape(12, 17, 3)


def refusal(path: Path | io.BytesIO, name: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path, name=name)
    message = str(caught.value)
    assert message.startswith(f"{name or path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_eight_orientations_read_the_same(tmp_path: Path, picture: np.ndarray, orientation: int, suffix: str) -> None:
    blocks = picture.repeat(16, 0).repeat(16, 1) if suffix == ".jpg" else picture  # whole JPEG blocks turn exactly
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](blocks)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
    stored.save(tmp_path / f"a{suffix}", exif=exif, **settings.get(suffix, {}))
    got = read_image(tmp_path / f"a{suffix}")
    assert got.shape == blocks.shape
    assert np.abs(got.astype(int) - blocks).max() <= (3 if suffix == ".jpg" else 0)


def test_grey_palette_and_one_bit_become_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    rgb = Image.fromarray(picture)
    for mode in ["L", "P", "1"]:
        image = rgb.convert(mode)
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.array(image.convert("RGB")))


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    layer = np.zeros((2, 2, 4), np.uint8)
    layer[0, 0] = [200, 100, 0, 255]
    layer[0, 1] = [200, 100, 0, 51]  # a fifth
    Image.fromarray(layer).save(tmp_path / "rgba.png")
    got = read_image(tmp_path / "rgba.png")
    np.testing.assert_array_equal(got[0, 0], [200, 100, 0])
    np.testing.assert_allclose(got[0, 1].astype(int), [244, 224, 204], atol=1)
    np.testing.assert_array_equal(got[1], np.full((2, 3), 255))

    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), [[[255, 255, 255], [1, 2, 3]]])

    Image.fromarray(np.array([[[0, 0, 0], [5, 5, 5]]], np.uint8)).save(tmp_path / "rgb.png", transparency=(0, 0, 0))
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png")[0, :, 0], [255, 5])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    ramp = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"a{suffix}")
    got = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(got[0, :, 0], [0, 0, 1, 1, 128, 255])
    np.testing.assert_array_equal(got[..., 0], got[..., 2])


def test_sixteen_bits_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, 0], [[0], [255]])


def test_pixels_of_unknown_range_are_refused(tmp_path: Path, check_message: Callable[..., None]) -> None:
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((3, 3), 70000, np.int32)).save(tmp_path / "i.tif")
    check_message(refusal(tmp_path / "f.tif"))
    check_message(refusal(tmp_path / "i.tif"))


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8].astype(int), [255, 0, 0], atol=3)


def test_result_can_be_written_to(tmp_path: Path, picture: np.ndarray) -> None:
    write_image(tmp_path / "a.png", picture)
    read_image(tmp_path / "a.png")[0, 0] = 0


def png_of(width: int, height: int, rows: int) -> bytes:
    """A PNG that claims a size and holds so many of its rows, one bit a pixel, all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes((width + 7) // 8 + 1) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 13_000, 30_000])  # below, between and above Pillow's own limits
def test_too_many_pixels_are_refused_without_decoding(
    tmp_path: Path, side: int, check_message: Callable[..., None]
) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(side, side, rows=100))
    tracemalloc.start()
    message = refusal(tmp_path / "bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check_message(message)
    assert peak < 5_000_000


def test_whole_bomb_leaves_memory_alone(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(30_000, 30_000, rows=30_000))
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        pytest.skip("this system does not tell the peak of memory")
    before = peak_kb()
    refusal(tmp_path / "bomb.png")
    assert peak_kb() - before < 50_000  # decoded it would be 900,000


def peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_limit_is_what_it_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    monkeypatch.setattr(image_io, "MAX_PIXELS", 12)
    Image.new("RGB", (4, 3)).save(tmp_path / "fits.png")
    Image.new("RGB", (13, 1)).save(tmp_path / "not.png")
    assert read_image(tmp_path / "fits.png").shape == (3, 4, 3)
    check_message(refusal(tmp_path / "not.png"))
    assert read_image(tmp_path / "not.png", max_pixels=13).shape == (1, 13, 3)
    with expect_error("fits.png"):
        read_image(tmp_path / "fits.png", max_pixels=11)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_usual_suffix(tmp_path: Path, kind: str) -> None:
    """It says what the file is, whatever it is called."""
    Image.new("RGB", (40, 40)).save(tmp_path / "name.txt", kind)
    suffix = image_io.usual_suffix(tmp_path / "name.txt")
    assert Image.registered_extensions()[suffix] == kind and suffix in image_io.SUFFIXES


def test_no_suffix_for_what_is_no_picture(tmp_path: Path, check_message: Callable[..., None]) -> None:
    (tmp_path / "name.png").write_text("text")
    with pytest.raises(UserError) as caught:
        image_io.usual_suffix(tmp_path / "name.png")
    assert str(caught.value).startswith(f"{tmp_path / 'name.png'}: ")
    check_message(str(caught.value), reason=True)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_file_is_refused(
    tmp_path: Path, suffix: str, share: float, check_message: Callable[..., None]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_image(tmp_path / f"whole{suffix}", noise)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"half{suffix}").write_bytes(data[: int(len(data) * share)])
    check_message(refusal(tmp_path / f"half{suffix}"), reason=True)


def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, check_message: Callable[..., None]) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in ["text.jpg", "empty.jpg", "script.jpg"]:
        check_message(refusal(tmp_path / name))
    check_message(refusal(tmp_path / "missing.jpg"))
    check_message(refusal(tmp_path))


def test_damaged_bytes_never_escape_as_another_error(picture: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for kind in ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"]:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, kind)
        for _ in range(40):
            data = bytearray(buffer.getvalue())
            for place in rng.integers(0, len(data), 4):
                data[place] = rng.integers(256)
            try:
                assert read_image(io.BytesIO(bytes(data))).dtype == np.uint8
            except UserError as error:
                assert str(error).startswith("picture: ")


def test_damaged_exif_does_not_spoil_the_picture(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\xff\xff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_file_object_and_its_name(picture: np.ndarray, check_message: Callable[..., None]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    np.testing.assert_array_equal(read_image(buffer), picture)
    check_message(refusal(io.BytesIO(b"?"), name="faces.zip/a.png"))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_written_pictures_are_marked(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, picture)
    assert is_marked(path)
    assert b"Iptc4xmpExt:DigitalSourceType" in path.read_bytes()
    if suffix == ".png":
        np.testing.assert_array_equal(read_image(path), picture)
    write_image(path, picture, synthetic=False)
    assert not is_marked(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_quality_counts(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in [".jpg", ".webp"]:
        write_image(tmp_path / f"low{suffix}", noise, quality=10)
        write_image(tmp_path / f"high{suffix}", noise)
        assert (tmp_path / f"low{suffix}").stat().st_size < (tmp_path / f"high{suffix}").stat().st_size / 2


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 200
    write_image(tmp_path / "a.jpg", stripes, quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - stripes).max() < 10


def test_what_cannot_be_written_is_said_by_name(
    tmp_path: Path, picture: np.ndarray, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    with expect_error("a.bmp"):
        write_image(tmp_path / "a.bmp", picture)
    with expect_error("no/a.png"):
        write_image(tmp_path / "no" / "a.png", picture)
    for name, width in (("a.webp", 16384), ("a.jpg", 65536)):
        with pytest.raises(UserError) as caught:
            write_image(tmp_path / name, np.zeros((1, width, 3), np.uint8))
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        check_message(re.sub(r"(cannot be written[^:]*): [^;]*", r"\1: REASON", str(caught.value)))
    with expect_error("expected", kind=ValueError):
        write_image(tmp_path / "a.png", picture.astype(np.float32))
    assert list(tmp_path.iterdir()) == []


def test_is_marked_needs_a_picture(tmp_path: Path, check_message: Callable[..., None]) -> None:
    (tmp_path / "text.jpg").write_text(image_io.SOURCE_TYPE)
    for name in ["text.jpg", "missing.jpg"]:
        with pytest.raises(UserError) as caught:
            is_marked(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        check_message(str(caught.value), reason=True)


def test_tensors_and_images_are_exact_inverses() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1).repeat(3, 3)
    levels[..., 1] = 255 - levels[..., 1]
    levels.flags.writeable = False
    tensor = to_tensor(levels[:, :, ::-1])
    assert tensor.dtype == torch.float32 and tensor.shape == (2, 3, 8, 16) and tensor.is_contiguous()
    assert tensor.min() == -1 and tensor.max() == 1
    np.testing.assert_array_equal(tensor[1, 1, 2, 3].item(), np.float32(levels[1, 2, 12, 1]) / np.float32(127.5) - 1)
    np.testing.assert_array_equal(to_images(tensor), levels[:, :, ::-1])
    assert to_images(tensor).flags.c_contiguous


def test_to_images_rounds_and_clamps() -> None:
    values = torch.tensor([-9.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1.0, 9.0], requires_grad=True)
    pixels = to_images(values.view(1, 1, 1, 6).expand(1, 3, 1, 6))
    np.testing.assert_array_equal(pixels[0, 0, :, 0], [0, 0, 0, 1, 255, 255])
    assert to_images(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).max() == 255


def test_swaps_into_grey_targets_are_grey_and_no_others() -> None:
    """Nearly grey is what JPEG makes of grey; sepia, a weak tint and a coloured corner are colours."""
    rng = np.random.default_rng(0)
    plain = np.repeat(cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 1), np.uint8), (0, 0), 2)[..., None], 3, axis=2)
    file = io.BytesIO()
    Image.fromarray(plain).save(file, "JPEG", quality=60)
    noisy = (plain.astype(int) + rng.integers(-2, 3, plain.shape)).clip(0, 255).astype(np.uint8)
    sepia = np.rint(plain * np.array([1, 0.85, 0.65])).astype(np.uint8)
    tinted = (plain.astype(int) + np.array([6, 0, 0])).clip(0, 255).astype(np.uint8)
    corner = plain.copy()
    corner[:8, :8] = [200, 40, 40]
    targets = np.stack([plain, np.asarray(Image.open(file)), noisy, sepia, tinted, corner])
    swaps = rng.integers(0, 256, targets.shape, np.uint8)
    made = keep_grey(swaps, targets)
    for swap in made[:3]:
        np.testing.assert_array_equal(swap, swap[..., :1].repeat(3, axis=2))
    lumas = [np.asarray(Image.fromarray(swap).convert("L"), int) for swap in swaps[:3]]
    assert np.abs(made[:3, ..., 0] - np.stack(lumas)).max() <= 1
    np.testing.assert_array_equal(made[3:], swaps[3:])
    np.testing.assert_array_equal(swap_images(to_tensor(swaps), to_tensor(targets)), made)


def test_lossless_webp_keeps_every_pixel(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    write_image(tmp_path / "a.webp", image, lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), image)
    assert is_marked(tmp_path / "a.webp")
    write_image(tmp_path / "b.webp", image)
    assert (read_image(tmp_path / "b.webp") != image).any()
