"""HEIC and JPEG XL are read with their extras, and named with them where these are not installed."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from swapping import swap_target
from test_colour_profile import P3, expected_srgb

from fsframework.core.errors import UserError
from fsframework.data.samples import portrait, somebody
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media import image_io, optional_formats
from fsframework.media.image_io import read_image, read_target, write_image
from fsframework.provenance.options import ProvenanceOptions

HEIC_START = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
JXL_STARTS = (b"\xff\x0a\xfa\x7f\x01\x90\x08\x06\x01\0\0\0", b"\0\0\0\x0cJXL \r\n\x87\n")


def picture() -> np.ndarray:
    """A portrait (120, 160, 3) that is not symmetric."""
    return np.asarray(Image.fromarray(portrait()).resize((160, 160)))[:120].copy()


def heic(pixels: np.ndarray, **settings: Any) -> bytes:
    """The content of a HEIC file."""
    library = pytest.importorskip("pillow_heif", reason="extra heic")
    library.register_heif_opener()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "HEIF", quality=-1, chroma=444, matrix_coefficients=0, **settings)
    return file.getvalue()


def jxl(pixels: np.ndarray, **settings: Any) -> bytes:
    """The content of a JPEG XL file, without loss."""
    library = pytest.importorskip("pylibjxl", reason="extra jxl")
    return bytes(library.encode(pixels, lossless=True, **settings))


@pytest.mark.parametrize("write", [heic, jxl])
def test_pixels_are_read(tmp_path: Path, write: Callable[..., bytes]) -> None:
    (tmp_path / "a.bin").write_bytes(write(picture()))
    assert np.abs(read_image(tmp_path / "a.bin").astype(int) - picture()).max() <= 1
    clear = np.dstack([picture(), np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))])
    (tmp_path / "b.bin").write_bytes(write(clear))
    target = read_target(tmp_path / "b.bin")
    assert target.alpha is not None and np.abs(target.alpha.astype(int) - clear[..., 3]).max() <= 1


@pytest.mark.parametrize("write", [heic, jxl])
def test_profiles_are_respected(tmp_path: Path, write: Callable[..., bytes]) -> None:
    settings = {"icc": P3} if write is jxl else {"icc_profile": P3}
    (tmp_path / "a.bin").write_bytes(write(picture(), **settings))
    assert np.abs(read_image(tmp_path / "a.bin") - expected_srgb(picture())).mean() < 0.6
    assert read_target(tmp_path / "a.bin").profile == P3


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(picture())
    turned = {
        1: upright,
        3: upright.rotate(180),
        6: upright.rotate(-90, expand=True),
        8: upright.rotate(90, expand=True),
    }
    result = read_image(io.BytesIO(heic(picture(), exif=exif.tobytes())), "a.heic")
    assert np.abs(result.astype(int) - np.asarray(turned[orientation])).max() <= 1
    # The codestream's orientation supersedes EXIF's in JPEG XL.
    np.testing.assert_array_equal(read_image(io.BytesIO(jxl(picture(), exif=exif.tobytes())), "a.jxl"), picture())


@pytest.mark.parametrize("write", [heic, jxl])
def test_damaged_and_large_files_are_refused(
    tmp_path: Path, write: Callable[..., bytes], expect_error: Callable[..., Any]
) -> None:
    whole = write(picture())
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut.bin").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"cut\.bin: .*; ") as caught:
            read_image(tmp_path / "cut.bin")
        assert "\n" not in str(caught.value)
    (tmp_path / "whole.bin").write_bytes(whole)
    with expect_error(f"{tmp_path / 'whole.bin'}: "):
        read_image(tmp_path / "whole.bin", max_pixels=1000)


@pytest.mark.parametrize("start", [HEIC_START, *JXL_STARTS], ids=["heic", "jxl", "jxl-boxes"])
def test_a_missing_library_is_named(
    tmp_path: Path, start: bytes, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setattr(image_io, "registered", lambda: ())
    monkeypatch.setattr(optional_formats, "registered", lambda: ())
    (tmp_path / "a.jpg").write_bytes(start + bytes(100))
    with expect_error(f"{tmp_path / 'a.jpg'}: "):
        read_image(tmp_path / "a.jpg")
    with expect_error("picture: "):
        read_image(io.BytesIO(start + bytes(100)))


def test_no_extra_is_needed_for_other_files() -> None:
    assert optional_formats.missing_format(b"GIF89a\0\0\0\0\0\0") is None
    assert optional_formats.missing_format(b"\0\0\0\x18ftypavif") is None


def test_a_folder_names_and_counts_them(
    converter: FaceSwapper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    monkeypatch.setattr(image_io, "registered", lambda: ())
    monkeypatch.setattr(optional_formats, "registered", lambda: ())
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    write_image(tmp_path / "in" / "a.png", portrait(), synthetic=False)
    (tmp_path / "in" / "b.heic").write_bytes(HEIC_START + bytes(100))
    (tmp_path / "in" / "c.jxl").write_bytes(JXL_STARTS[0] + bytes(100))
    (tmp_path / "in" / "d.psd").write_bytes(b"8BPS")
    plain = ProvenanceOptions(provenance=False)
    assert swap_target(converter, tmp_path / "in", tmp_path / "o", tmp_path / "source.png", provenance=plain) == 2
    output = capsys.readouterr()
    assert output.out.startswith(f"1 of 3 files are in {tmp_path / 'o'}; 1 face swapped in ")
    lines = [line for line in output.err.splitlines() if "is generated at" not in line]
    check_message("\n".join(lines))


def test_results_of_unwritable_formats_are_png(converter: FaceSwapper, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(heic(portrait()))
    (tmp_path / "in" / "b.jxl").write_bytes(jxl(portrait()))
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    assert swap_target(converter, tmp_path / "in", tmp_path / "o", tmp_path / "source.png") == 0
    written = sorted(file.name for file in (tmp_path / "o").iterdir() if not file.name.startswith("."))
    assert written == ["a.heic.png", "b.jxl.png"]
