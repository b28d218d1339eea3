"""Faces that are much larger than a model's crops are reported once, with what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fsf_faceshifter.shipped import HASHES
from PIL import Image
from swapping import FAST_MODEL, swap_target

import fsframework as fsf
from fsframework.core.components import Model
from fsframework.core.registry import Registry, registry
from fsframework.core.types import Face
from fsframework.data.samples import portrait, somebody
from fsframework.faces.align import template
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.soft_swap import size_note, small_faces_note, soft_swap_note
from fsframework.media.image_io import write_image
from fsframework.models import store

Check = Callable[..., None]


def face(side: float) -> Face:
    """A face whose crop has this side."""
    return Face(np.array([0, 0, side / 2, side / 2]), template(1) * side + 300, 1.0)


def only(monkeypatch: pytest.MonkeyPatch, *models: Model) -> None:
    """Make these the only installed models."""
    found = registry()
    changed = Registry(found.components, {model.name: model for model in models}, found.distributions, found.problems)
    monkeypatch.setattr(store, "registry", lambda: changed)


@pytest.mark.parametrize("sides", [[], [10], [128], [30, 127.9, 20]])
def test_faces_of_up_to_twice_the_crop_are_no_news(sides: list[float]) -> None:
    assert soft_swap_note(map(face, sides), 64) is None


@pytest.mark.parametrize(("sides", "size"), [([128.2], 64), ([40, 400, 300], 64), ([300], 128), ([600], 256)])
def test_larger_faces_are_news(sides: list[float], size: int, check_message: Check) -> None:
    note = soft_swap_note(map(face, sides), size)
    assert note is not None and "\n" not in note and f"{max(sides):.0f} px" in note
    check_message(note)


def boxed(*sides: float) -> list[Face]:
    """Faces with boxes of these sides, twice as high."""
    return [Face(np.array([0, 0, side, 2 * side]), template(1) * side, 1.0) for side in sides]


@pytest.mark.parametrize("sides", [[], [20.0], [19.5], [12.0, 300.0, 8.4]])
def test_faces_under_twenty_pixels_are_news(sides: list[float], check_message: Check) -> None:
    note = small_faces_note(boxed(*sides))
    assert (note is None) == (min(sides, default=20) >= 20)
    if note is not None:
        assert "\n" not in note
        check_message(note)


def test_both_notes_are_one_line() -> None:
    faces = [*boxed(12), face(300)]
    assert size_note(faces, 64) == f"{soft_swap_note(faces, 64)}; {small_faces_note(faces)}"
    assert size_note(boxed(30), 64) is None


def test_only_face_swappers_with_larger_crops_are_recommended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check_message: Check
) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    damaged = Model("damaged", tmp_path / "damaged.safetensors", None)
    absent = Model("absent", tmp_path / "absent.safetensors", None)
    only(monkeypatch)
    assert store.largest_swapper() == ("", 0)
    only(monkeypatch, damaged, absent, registry().models[FAST_MODEL])
    assert store.largest_swapper() == (FAST_MODEL, 64)
    note = soft_swap_note([face(200)], 64)
    assert note is not None
    check_message(note)


def test_the_largest_installed_model_is_found() -> None:
    sizes = {name: store.recipe_of(registry().models[name]).size for name in HASHES}
    assert store.largest_swapper()[1] == max(sizes.values())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A source, a picture with a head of over 128 px, and one with a smaller head."""
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    (tmp_path / "pictures").mkdir()
    for name, side in (("large", 512), ("larger", 700), ("little", 256)):
        picture = np.asarray(Image.fromarray(portrait()).resize((side, side)))
        write_image(tmp_path / "pictures" / f"{name}.png", picture, synthetic=False)
    return tmp_path


def test_a_folder_says_it_once(
    converter: FaceSwapper, place: Path, capsys: pytest.CaptureFixture[str], check_message: Check
) -> None:
    for _ in range(2):  # results that exist already are no news
        assert swap_target(converter, place / "pictures", place / "out", place / "source.png") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{place}/pictures/large.png")
    check_message(line)


def test_a_picture_says_it(converter: FaceSwapper, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("larger", "little"):
        target = place / "pictures" / f"{name}.png"
        assert swap_target(converter, target, place / f"{name}.png", place / "source.png") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{place}/pictures/larger.png: ") and "64 px" in line


@pytest.mark.parametrize("preview", [None, 2])
def test_a_video_says_it_once(
    converter: FaceSwapper, place: Path, preview: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    from synthetic_video import make_video

    film, out = place / "film.mp4", place / ("out.mp4" if preview is None else "out.png")
    make_video(film, [np.roll(portrait(), shift, axis=1) for shift in range(3)])
    assert swap_target(converter, film, out, place / "source.png", preview=preview) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{film}: ")


def test_results_in_python_have_the_note(converter: FaceSwapper, place: Path) -> None:
    swapper = fsf.SwapPipeline(converter)
    large = swapper.swap(place / "source.png", place / "pictures" / "large.png")
    little = swapper.swap(place / "source.png", place / "pictures" / "little.png")
    assert large.note == soft_swap_note(large.faces, 64) is not None and little.note is None


def test_a_small_face_is_said_once(
    converter: FaceSwapper, place: Path, capsys: pytest.CaptureFixture[str], check_message: Check
) -> None:
    (place / "small").mkdir()
    canvas = np.full((180, 240, 3), 128, np.uint8)
    for side in (100, 104):
        small = np.asarray(Image.fromarray(portrait()).resize((side, side), Image.Resampling.BOX))
        canvas[20 : 20 + side, 40 : 40 + side] = small
        write_image(place / "small" / f"{side}.png", canvas, synthetic=False)
    assert swap_target(converter, place / "small", place / "out", place / "source.png") == 0
    (line,) = capsys.readouterr().err.splitlines()
    check_message(line)
    swapper = fsf.SwapPipeline(converter)
    assert swapper.swap(place / "source.png", place / "small" / "100.png").note == line.split(": ", 1)[1]
