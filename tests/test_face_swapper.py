"""Pictures in, swapped pictures out."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from swapping import FAST_MODEL, swap_file, swap_pairs
from torch import Tensor

from fsframework.core.components import AttributeEncoder, ComponentOptions, Detector, Generator, IdentityEncoder
from fsframework.core.part import part
from fsframework.core.swapper import Swapper
from fsframework.core.types import Face, FaceBatch
from fsframework.faces.align import TEMPLATE, align
from fsframework.faces.color_transfer import match_boundary_color
from fsframework.faces.paste import Compositor, PasteOptions, paste, soft_mask
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.jobs import AssignmentFiles, SwapOptions, target_jobs
from fsframework.inference.runner import DONE, run_jobs
from fsframework.media.image_io import is_marked, read_image, write_image
from fsframework.models.run import Run
from fsframework.ops.conv import Conv2d
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify
from fsframework.utils.shards import JobShard
from fsframework.utils.weights import digest

SIZE = 32
NONE = ComponentOptions()
PLAIN = ProvenanceOptions(provenance=False)  # every pixel is what the swap made it
MIDDLE = np.array([0.504, 0.60])  # of the face, in units of the crop's side


class Discs(Detector):
    """Takes every bright disc for a face; right to left, so that no order is right by chance."""

    calls = 0

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        self.calls += len(frames)
        return [self._discs(frame) for frame in frames]

    def _discs(self, frame: np.ndarray) -> list[Face]:
        _, _, boxes, centres = cv2.connectedComponentsWithStats((frame.mean(axis=2) > 128).astype(np.uint8))
        faces = []
        for (left, top, width, height, _), centre in zip(boxes[1:], centres[1:], strict=True):
            landmarks = centre + (TEMPLATE - MIDDLE) * width / 0.66  # the mask is 0.66 of the crop wide
            box = np.array([left, top, left + width, top + height])
            faces.append(Face(box=box, landmarks=landmarks, score=1.0))
        return sorted(faces, key=lambda face: -face.box[0])


class MeanColour(IdentityEncoder):
    """Counts the faces it is shown."""

    dim = 3
    calls = 0

    def forward(self, faces: FaceBatch) -> Tensor:
        self.calls += len(faces.image)
        quarter = SIZE // 4
        return faces.image[:, :, 2 * quarter : -quarter, quarter + 4 : -quarter - 4].mean(dim=(2, 3))


class Pixels(AttributeEncoder):
    """The target itself. Notes the batches it is shown."""

    def __init__(self) -> None:
        super().__init__(NONE, SIZE)
        self.channels = [3]
        self.batches: list[int] = []

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        assert not torch.isnan(faces.landmarks).any()
        self.batches.append(len(faces.image))
        return [faces.image]


class Painter(Generator):
    """The source's colour everywhere, and a mask that takes all of it."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        colour = z_id[:, :, None, None].expand_as(z_att[0])
        return torch.cat([colour, torch.ones_like(colour[:, :1])], dim=1)


class LeftHalf(Painter):
    """A mask that takes the left half."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        painted = super().forward(z_id, z_att)
        painted[:, 3, :, SIZE // 2 :] = 0
        return painted


class Negative(Generator):
    """The target with its colours turned round; no mask."""

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        return -z_att[0]


def build(generator: type[Generator] = Painter) -> FaceSwapper:
    swapper = Swapper(MeanColour(NONE), Pixels(), generator(NONE, SIZE, 3, [3]))
    return FaceSwapper.of(swapper, Discs(NONE), SIZE)


def batches(converter: FaceSwapper) -> list[int]:
    """How many faces the networks were shown at once, each time."""
    assert isinstance(converter.swapper.attributes, Pixels)
    return converter.swapper.attributes.batches


@pytest.fixture
def converter() -> FaceSwapper:
    return build()


@pytest.fixture(autouse=True)
def no_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all heads here are of more than twice the toy's 32 px, which test_soft_swap.py is about."""
    monkeypatch.setattr("fsframework.inference.runner.soft_swap_note", lambda faces, size: None)


def scene(*discs: tuple[int, int, int], colour: tuple[int, int, int] = (200, 200, 200)) -> np.ndarray:
    """Bright discs (x, y, radius) on dark ground that is nowhere quite the same."""
    y, x = np.mgrid[:240, :320]
    frame = np.stack([20 + x // 16, 20 + y // 16, 30 + (x + y) // 32], axis=2).astype(np.uint8)
    for left, top, radius in discs:
        cv2.circle(frame, (left, top), radius, colour, cv2.FILLED)
    return frame


RED = scene((150, 120, 60), colour=(255, 140, 10))  # who is put in
NOBODY = scene()
TARGET = scene((160, 120, 40))
CROWD = scene((60, 60, 20), (160, 180, 25), (260, 70, 40))


def reds(frame: np.ndarray, x: int, y: int) -> bool:
    return bool(np.abs(frame[y, x].astype(int) - [255, 140, 10]).max() <= 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "red.png", RED)
    write_image(tmp_path / "nobody.png", NOBODY)
    write_image(tmp_path / "target.png", TARGET)
    write_image(tmp_path / "crowd.png", CROWD)
    return tmp_path


# One picture


def test_what_convolutions_make_of_their_weights_is_kept() -> None:
    layers = [each for each in FaceSwapper(FAST_MODEL, "cpu").swapper.modules() if isinstance(each, Conv2d)]
    assert layers and all(layer.cached is not None for layer in layers)


@pytest.mark.parametrize(("mask", "radius"), [("oval", 50), ("hull", 60)])  # the hull's forehead is higher
def test_swap_paints_the_source_into_the_face_alone(converter: FaceSwapper, mask: str, radius: int) -> None:
    converter.paster = Compositor(PasteOptions(mask), SIZE)
    before = TARGET.copy()
    after = converter.swap(RED, TARGET)
    assert (before == TARGET).all()
    assert after.shape == TARGET.shape and after.dtype == np.uint8
    assert reds(after, 160, 120)
    y, x = np.mgrid[:240, :320]
    away = np.hypot(x - 160, y - 120) > radius
    assert (after[away] == TARGET[away]).all()


def test_swap_takes_the_largest_face_of_the_source(converter: FaceSwapper) -> None:
    two = scene((150, 120, 60), colour=(255, 140, 10))
    cv2.circle(two, (290, 40), 15, (120, 200, 255), cv2.FILLED)
    assert reds(converter.swap(two, TARGET), 160, 120)


@pytest.mark.parametrize(
    ("face", "changed"),
    [
        ("largest", [False, False, True]),
        ("all", [True, True, True]),
        ("1", [True, False, False]),
        ("2", [False, True, False]),
        ("3", [False, False, True]),
    ],
)
def test_face_says_which_faces_change(converter: FaceSwapper, face: str, changed: list[bool]) -> None:
    after = converter.swap(RED, CROWD, face)
    assert [reds(after, x, y) for x, y in [(60, 60), (160, 180), (260, 70)]] == changed


def test_a_number_too_large_says_how_many_there_are(
    converter: FaceSwapper, folder: Path, expect_error: Callable[..., Any]
) -> None:
    with expect_error("crowd.png: face 4 ") as caught:
        swap_file(converter, folder / "red.png", folder / "crowd.png", folder / "out.png", "4")
    assert "3" in str(caught.value).removeprefix(str(folder))


@pytest.mark.parametrize("face", ["0", "-1", "1.5", "biggest", ""])
def test_a_face_that_means_nothing_is_refused_before_any_work(
    converter: FaceSwapper, folder: Path, face: str, expect_error: Callable[..., Any]
) -> None:
    with expect_error(f"face: {face!r} "):
        swap_file(converter, folder / "red.png", folder / "target.png", folder / "out.png", face)
    assert converter.detector.calls == 0


def test_several_faces_go_through_the_networks_together(converter: FaceSwapper) -> None:
    converter.swap(RED, CROWD, "all")
    assert converter.swapper.identity.calls == 1 and batches(converter) == [3]


def test_a_crowd_is_swapped_in_bounded_batches(converter: FaceSwapper) -> None:
    places = [(x, y, 8) for x in range(20, 310, 40) for y in range(20, 230, 50)]
    after = converter.swap(RED, scene(*places), "all")
    assert batches(converter) == [16, 16, 8] and len(places) == 40
    assert all(reds(after, x, y) for x, y, _ in places)


def test_faces_that_overlap_are_pasted_one_after_the_other(converter: FaceSwapper) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    source = converter.source(RED, "source")
    swaps = []
    for x, y, side in [(90, 90, 80), (130, 100, 90), (10, 120, 60), (290, 190, 70), (125, 130, 25)]:
        box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
        swaps.append((Face(box, np.array([x, y]) + (TEMPLATE - MIDDLE) * side / 0.66, 1.0), source))
    before = noise.copy()
    plain, swapped = converter.swap_frames([noise, noise], [[], swaps])
    expected = noise
    for crop, image, mask in converter.crops(noise, swaps):
        expected = paste(expected, image, crop.matrix, mask)
    assert (swapped == expected).all() and (swapped != noise).any()
    assert plain is noise and (noise == before).all()


def test_the_generators_mask_is_used() -> None:
    after = build(LeftHalf).swap(RED, TARGET)
    assert reds(after, 140, 120) and (after[120, 180] == TARGET[120, 180]).all()


def test_colours_are_matched_at_the_edge() -> None:
    crop = align(TARGET, Discs(NONE)([TARGET])[0][0], SIZE)
    for shift in ([0, 0, 0], [30, -20, 10]):
        shifted = np.clip(crop.image.astype(int) // 2 + 40 + shift, 0, 255).astype(np.uint8)
        if shift == [0, 0, 0]:
            plain = match_boundary_color(shifted, crop.image, soft_mask(SIZE))
        else:
            assert np.abs(match_boundary_color(shifted, crop.image, soft_mask(SIZE)).astype(int) - plain).max() <= 1
    assert (match_boundary_color(crop.image, crop.image, soft_mask(SIZE)) == crop.image).all()


def test_no_face_names_the_picture(converter: FaceSwapper, folder: Path, expect_error: Callable[..., Any]) -> None:
    for source, target in [("nobody.png", "target.png"), ("red.png", "nobody.png")]:
        with expect_error("nobody.png: "):
            swap_file(converter, folder / source, folder / target, folder / "out.png")
    with expect_error("source: "):
        converter.swap(NOBODY, TARGET)
    assert not (folder / "out.png").exists()


# Kinds of files


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_the_result_says_that_it_is_synthetic(converter: FaceSwapper, folder: Path, suffix: str) -> None:
    out = folder / f"out{suffix}"
    swap_file(converter, folder / "red.png", folder / "target.png", out)
    assert is_marked(out) and np.abs(read_image(out)[120, 160].astype(int) - [255, 140, 10]).max() < 12


def test_the_result_says_what_made_it(converter: FaceSwapper, folder: Path) -> None:
    converter.model, converter.recipe_sha256 = "toy", "ab" * 32
    swap_file(
        converter,
        folder / "red.png",
        folder / "target.png",
        folder / "one.png",
        provenance=ProvenanceOptions(consent="yes"),
    )
    swap_file(converter, folder / "red.png", folder / "one.png", folder / "two.jpg")
    one, two = (verify(folder / name) for name in ("one.png", "two.jpg"))
    assert one.verdict == two.verdict == "intact" and one.manifest is not None and two.manifest is not None
    assert one.manifest.facts.items() >= {"model": "toy", "recipe_sha256": "ab" * 32}.items()
    assert one.manifest.consent == "yes" and two.manifest.consent is None
    assert one.watermark is not None and two.watermark is not None and one.watermark.payload != two.watermark.payload
    parent, component = two.manifest.ingredients
    assert parent["manifest"] == one.manifest.label and component["title"] == "source"
    assert [report.ledger[0]["size"] for report in (one, two)] == [[320, 240]] * 2


def test_a_list_is_marked_as_one_picture_is(converter: FaceSwapper, folder: Path) -> None:
    table = listed(folder, "red.png,target.png,a.png", "red.png,crowd.png,b.jpg")
    assert swap_pairs(converter, table, folder / "signed", provenance=ProvenanceOptions(consent="yes")) == 0
    assert swap_pairs(converter, table, folder / "plain", provenance=PLAIN) == 0
    for name in ("a.png", "b.jpg"):
        signed, plain = verify(folder / "signed" / name), verify(folder / "plain" / name)
        assert signed.verdict == "intact" and signed.manifest is not None and signed.manifest.consent == "yes"
        assert plain.verdict == "unsigned" and plain.ledger[0]["provenance"] is False


def test_what_cannot_be_signed_is_said_before_any_work(
    converter: FaceSwapper, folder: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setenv("FSF_C2PA_CERT", str(folder / "none.pem"))
    monkeypatch.setenv("FSF_C2PA_KEY", str(folder / "none.key"))
    with expect_error(f"none.pem, {folder}/none.key: "):
        swap_file(converter, folder / "red.png", folder / "target.png", folder / "out.png")
    with expect_error(f"none.pem, {folder}/none.key: "):
        swap_pairs(converter, listed(folder, "red.png,target.png,a.png"), folder / "results")
    assert converter.detector.calls == 0 and not (folder / "out.png").exists()


def grey(path: Path) -> None:
    Image.fromarray(TARGET).convert("L").save(path)


def transparent(path: Path) -> None:
    Image.fromarray(TARGET).convert("RGBA").save(path)


def palette(path: Path) -> None:
    Image.fromarray(TARGET).convert("P").save(path)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(TARGET[..., 0].astype(np.uint16) * 257).save(path)


def cmyk(path: Path) -> None:
    Image.fromarray(TARGET).convert("CMYK").save(path, format="TIFF")


def test_a_swap_in_a_grey_picture_is_grey(converter: FaceSwapper, folder: Path) -> None:
    for name, save in (("grey.png", grey), ("grey.jpg", grey), ("deep.png", sixteen_bits)):
        save(folder / name)
        swap_file(converter, folder / "red.png", folder / name, folder / "out.png")
        before, after = read_image(folder / name), read_image(folder / "out.png")
        assert np.ptp(after[120, 160]) <= 4 and np.abs(after[120, 160].astype(int) - before[120, 160]).max() > 20


def test_in_a_grey_frame_crops_and_results_are_exactly_grey(converter: FaceSwapper) -> None:
    """Of several faces in a batch each follows its own target: here one frame has colours and one has none."""
    luma = np.repeat(cv2.cvtColor(TARGET, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    source = converter.source(RED, "source")
    swaps = [[(face, source) for face in converter.find(frame, "target")] for frame in (luma, TARGET)]
    plain, coloured = converter.swap_frames([luma, TARGET], swaps)
    assert np.ptp(plain, axis=2).max() == 0 and np.abs(plain[120, 160].astype(int) - luma[120, 160]).max() > 20
    np.testing.assert_array_equal(coloured, converter.swap(RED, TARGET))
    assert reds(coloured, 160, 120)
    for frame, of_frame, grey_crop in ((luma, swaps[0], True), (TARGET, swaps[1], False)):
        ((_, image, _),) = converter.crops(frame, of_frame)
        assert (np.ptp(image, axis=2).max() == 0) == grey_crop


@pytest.mark.parametrize("save", [transparent, palette, cmyk])
def test_every_kind_of_picture_works(converter: FaceSwapper, folder: Path, save: Callable[[Path], None]) -> None:
    target = folder / ("odd.tif" if save is cmyk else "odd.png")
    save(target)
    swap_file(converter, folder / "red.png", target, folder / "out.png", provenance=PLAIN)
    after = read_image(folder / "out.png")
    assert reds(after, 160, 120) and (after[:60] == read_image(target)[:60]).all()


def test_a_turned_picture_comes_out_upright(converter: FaceSwapper, folder: Path) -> None:
    upright = scene((100, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(np.rot90(upright)).save(folder / "turned.png", exif=exif)
    swap_file(converter, folder / "red.png", folder / "turned.png", folder / "out.png", provenance=PLAIN)
    with Image.open(folder / "out.png") as out:
        assert out.getexif().get(0x0112, 1) == 1
    after = read_image(folder / "out.png")
    assert after.shape == upright.shape and reds(after, 100, 60) and (after[:, 200:] == upright[:, 200:]).all()


def no_picture(path: Path) -> None:
    path.write_text("I am a text.")


def truncated(path: Path) -> None:
    Image.fromarray(TARGET).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def reason_of(path: Path) -> dict[str, str]:
    """Return what hides Pillow's words on a damaged picture, which change with its version."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError as error:
        return {} if error.errno is not None else {str(error): "REASON"}
    return {}


def empty(path: Path) -> None:
    path.touch()


def missing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [no_picture, truncated, empty, missing, Path.mkdir])
@pytest.mark.parametrize("role", ["source", "target"])
def test_a_bad_file_is_named_and_nothing_is_written(
    converter: FaceSwapper, folder: Path, make: Callable[[Path], None], role: str, expect_error: Callable[..., Any]
) -> None:
    bad = folder / "bad.jpg"
    make(bad)
    (folder / "out.png").write_bytes(b"what was here before")
    before = sorted(folder.iterdir())
    pictures = {"source": folder / "red.png", "target": folder / "target.png", role: bad}
    with expect_error("bad.jpg: ", hide=reason_of(bad)):
        swap_file(converter, pictures["source"], pictures["target"], folder / "out.png")
    assert sorted(folder.iterdir()) == before and (folder / "out.png").read_bytes() == b"what was here before"


# Where results go


@pytest.mark.parametrize("victim", ["red.png", "target.png"])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_inputs_are_never_overwritten(
    converter: FaceSwapper,
    folder: Path,
    victim: str,
    link: Callable[[Path, Path], None] | None,
    expect_error: Callable[..., Any],
) -> None:
    out = folder / victim if link is None else folder / "link.png"
    if link is not None:
        link(folder / victim, out)
    before = (folder / victim).read_bytes()
    with expect_error(f"{out.name}: "):
        swap_file(converter, folder / "red.png", folder / "target.png", out)
    assert (folder / victim).read_bytes() == before and converter.detector.calls == 0


@pytest.mark.parametrize("name", ["out.gif", "out", "out.txt", "nowhere/out.png"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    converter: FaceSwapper, folder: Path, name: str, expect_error: Callable[..., Any]
) -> None:
    with expect_error(f"{name}: "):
        swap_file(converter, folder / "red.png", folder / "target.png", folder / name)
    assert converter.detector.calls == 0


# Lists of pictures


def test_an_existing_file_is_replaced_only_on_request(
    folder: Path, converter: FaceSwapper, capsys: pytest.CaptureFixture[str], expect_error: Callable[..., Any]
) -> None:
    source, target, out = folder / "red.png", folder / "crowd.png", folder / "out.png"
    out.write_bytes(b"mine")
    assignment = AssignmentFiles("all", source)
    with expect_error("out.png", hide={f"{folder}{os.sep}": ""}):
        target_jobs(target, out, assignment, SwapOptions(PLAIN, overwrite=False))
    assert out.read_bytes() == b"mine"
    options = SwapOptions(PLAIN, overwrite=True, summary=True)
    assert run_jobs(converter, target_jobs(target, out, assignment, options)) == 0
    assert read_image(out).shape == read_image(target).shape
    faces = len(converter.find(read_image(target), "target"))
    noun = "1 face" if faces == 1 else f"{faces} faces"
    assert re.fullmatch(rf"{re.escape(str(out))}: {noun} swapped in \d+\.\d s\n", capsys.readouterr().out)


def listed(folder: Path, *lines: str, header: str = "source,target,name") -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_one_bad_line_does_not_stop_the_rest(
    converter: FaceSwapper, folder: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    truncated(folder / "half.jpg")
    table = listed(
        folder,
        "red.png,target.png,good.png",
        "red.png,half.jpg,half.png",
        "nobody.png,target.png,nobody.png",
        "red.png,target.png",
        "red.png,crowd.png,good.gif",
        f"{folder / 'red.png'},crowd.png,sub/also good",
    )
    out = folder / "results"
    assert swap_pairs(converter, table, out) == 4
    names = ["good.png", "sub/also good.png"]
    made = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert made == [*(f"{DONE}/{name}.sha256" for name in names), *names]
    assert reds(read_image(out / "good.png"), 160, 120) and reds(read_image(out / "sub/also good.png"), 260, 70)
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in errors] == ["line 3", "line 4", "line 5", "line 6"]
    places = [f"{folder}/half.jpg: ", f"{folder}/nobody.png: ", "", "good.gif: "]
    for number, line, place in zip(range(3, 7), errors, places, strict=True):
        assert line.startswith(f"{table}: line {number}: {place}")
        check_message(line, reason_of(folder / "half.jpg"))


def test_columns_may_stand_in_any_order(converter: FaceSwapper, folder: Path) -> None:
    table = listed(folder, "1,good.png,crowd.png,red.png", header="\ufeffnumber,name,target,source")
    assert swap_pairs(converter, table, folder / "results", "1") == 0
    assert reds(read_image(folder / "results/good.png"), 60, 60)


def test_a_source_of_many_lines_is_computed_once(converter: FaceSwapper, folder: Path) -> None:
    shutil.copy(folder / "red.png", folder / "other.png")
    lines = [f"{source},target.png,{source}{number}" for number in range(3) for source in ("red.png", "other.png")]
    lines = [line + ".png" for line in lines]
    assert swap_pairs(converter, listed(folder, *lines), folder / "results") == 0
    assert len(list((folder / "results").glob("*.png"))) == 6
    assert len(list((folder / "results").iterdir())) == 7  # and the markers
    assert converter.swapper.identity.calls == 2 and converter.detector.calls == 2 + 6


@pytest.mark.parametrize("name", ["../out.png", "sub/../../out.png", "/out.png", "link/out.png", "..", ".", "sub/.."])
def test_names_stay_inside_the_folder(
    converter: FaceSwapper,
    folder: Path,
    name: str,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "results").mkdir()
    (folder / "results/link").symlink_to(folder / "elsewhere")
    before = sorted(folder.rglob("*"))
    table = listed(folder, f"red.png,target.png,{name.replace('/out', f'{folder}/out') if name[0] == '/' else name}")
    assert swap_pairs(converter, table, folder / "results") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{table}: line 2: ")
    check_message(line)
    assert sorted(folder.rglob("*")) == sorted([*before, table])


def test_a_name_too_long_for_the_system_is_one_bad_line(
    converter: FaceSwapper, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = listed(folder, f"red.png,target.png,{'x' * 300}.png", f"red.png,target.png,{'y' * 300}/z.png")
    assert swap_pairs(converter, table, folder / "results") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_no_result_replaces_an_input_or_another_result(
    converter: FaceSwapper, folder: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    before = (folder / "crowd.png").read_bytes()
    table = listed(
        folder,
        "red.png,target.png,crowd.png",
        "red.png,crowd.png,out.png",
        "crowd.png,target.png,out.png",
    )
    assert swap_pairs(converter, table, folder) == 2
    errors = capsys.readouterr().err.splitlines()
    places = [f"line 2: {folder}/crowd.png: ", f"line 4: {folder}/out.png: "]
    for line, place in zip(errors, places, strict=True):
        assert line.startswith(f"{table}: {place}")
        check_message(line)
    assert (folder / "crowd.png").read_bytes() == before and reds(read_image(folder / "out.png"), 260, 70)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_list_goes_on_where_it_was(
    converter: FaceSwapper, folder: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    lines = ["red.png,target.png,a.png", "red.png,crowd.png,b.png", "crowd.png,target.png,sub/c.png"]
    out = folder / "results"
    assert swap_pairs(converter, listed(folder, *lines), out, provenance=PLAIN) == 0
    check_message(capsys.readouterr().out)
    made = contents(out)

    def times() -> dict[str, int]:
        return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in out.rglob("*.png")}

    def changed_by(**options: Any) -> set[str]:
        before = times()
        assert swap_pairs(converter, listed(folder, *lines), out, provenance=options.pop("provenance", PLAIN)) == 0
        return {name for name, when in times().items() if before.get(name) != when}

    capsys.readouterr()
    (out / "a.png").unlink()
    assert changed_by() == {"a.png"} and contents(out) == made
    check_message(capsys.readouterr().out)
    assert changed_by() == set()
    lines[1] = "red.png,target.png,b.png"  # another target
    assert changed_by() == {"b.png"}
    lines[0] = "crowd.png,target.png,a.png"  # another source
    assert changed_by() == {"a.png"}
    shutil.copy(folder / "target.png", folder / "crowd.png")  # another source of that name
    assert changed_by() == {"a.png", "sub/c.png"}
    assert changed_by(provenance=ProvenanceOptions(False, label=True)) == {"a.png", "b.png", "sub/c.png"}


def test_shards_of_a_list_make_what_the_whole_makes(
    converter: FaceSwapper, folder: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    lines = [f"{source},target.png,{source}{number}.png" for number in range(3) for source in ("red.png", "crowd.png")]
    table = listed(folder, *lines, "nobody.png,target.png,n.png", "red.png,target.png,../o.png")
    assert swap_pairs(converter, table, folder / "whole", provenance=PLAIN) == 2
    whole = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in whole] == ["line 8", "line 9"]
    shards = [JobShard(number, 2) for number in (1, 2)]
    failed = [swap_pairs(converter, table, folder / "shards", provenance=PLAIN, shard=shard) for shard in shards]
    shown = capsys.readouterr()
    assert sum(failed) == 2 and sorted(shown.err.splitlines()) == whole
    check_message(shown.out)
    assert contents(folder / "shards") == contents(folder / "whole") and len(contents(folder / "whole")) == 12


def test_lines_without_a_source_take_those_of_the_people(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    """The encoder compares colours here: grey discs show one person, red ones another."""

    class Comparing(MeanColour):
        metric = True
        match_threshold = 0.9

    converter = FaceSwapper.of(Swapper(Comparing(NONE), Pixels(), Painter(NONE, SIZE, 3, [3])), Discs(NONE), SIZE)
    write_image(folder / "two.png", np.maximum(scene((60, 60, 40)), scene((240, 160, 40), colour=(255, 140, 10))))
    write_image(folder / "blue.png", scene((150, 120, 60), colour=(120, 160, 255)))
    people = [f"{folder / 'red.png'}={folder / 'blue.png'}"]
    out = folder / "results"
    table = listed(folder, "two.png,a.png", "target.png,b.png", ",c.png", header="target,name")
    assert swap_pairs(converter, table, out, mappings=people, provenance=PLAIN) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in errors] == ["line 3", "line 4"]
    assert f"{folder}/target.png: " in errors[0]  # shows none of the people
    for line in errors:
        check_message(line)
    two, after = read_image(folder / "two.png").astype(int), read_image(out / "a.png").astype(int)
    assert (after[60, 60] == two[60, 60]).all() and after[160, 240, 2] > after[160, 240, 0]  # red became blue
    table = listed(folder, ",two.png,a.png", "red.png,two.png,both.png")
    assert swap_pairs(converter, table, out, "1", mappings=people, provenance=PLAIN) == 0
    both = read_image(out / "both.png").astype(int)
    assert reds(both, 60, 60) and (both[160, 240] == two[160, 240]).all()  # the line's own source, by --face
    assert (read_image(out / "a.png") == after).all()
    with expect_error("list.csv: line 1: "):
        swap_pairs(converter, listed(folder, "two.png,a.png", header="target,name"), out)
    with expect_error("nobody.png: "):
        swap_pairs(converter, table, out, mappings=[f"{folder / 'nobody.png'}={folder / 'blue.png'}"])


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "line 1: "),
        (b"source,target\na,b\n", "line 1: "),
        (b"source,target,name\n", ""),
        (b"source,target,name\n\xff\xfe,b,c\n", ""),
        (b"\x89PNG\0\0", ""),
        (b"a\0b", ""),
        (None, ""),
    ],
    ids=["empty", "no name", "no lines", "no UTF-8", "PNG", "zero", "missing"],
)
def test_a_list_that_is_none_is_refused(
    converter: FaceSwapper, folder: Path, content: bytes | None, place: str, expect_error: Callable[..., Any]
) -> None:
    table = folder / "list.csv"
    if content is not None:
        table.write_bytes(content)
    with expect_error(f"list.csv: {place}") as caught:
        swap_pairs(converter, table, folder / "results")
    assert str(caught.value).startswith(f"{table}: ") and not (folder / "results").exists()


# How it looks, and the real parts


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    detector = part("detectors", "mtcnn").build()
    detector.load()
    return detector


def step_across(frame: np.ndarray, mask: np.ndarray) -> float:
    """Mean change of brightness from pixel to pixel, straight across a mask's edge."""
    smooth = cv2.GaussianBlur(mask, (0, 0), 2)
    down, right = np.gradient(smooth)
    vertical, horizontal = np.gradient(frame.mean(axis=2))
    edge = (smooth > 0.02) & (smooth < 0.98)
    change = np.abs(horizontal * right + vertical * down)[edge] / np.hypot(right, down)[edge]
    return float(change.mean())


def in_frame(mask: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    white = np.full((*mask.shape, 3), 255, np.uint8)
    return paste(np.zeros(shape, np.uint8), white, matrix, mask)[..., 0] / 255.0


@pytest.mark.parametrize("size", [64, 128])
def test_no_box_is_seen(mtcnn: Detector, size: int) -> None:
    """Across the mask's edge a swap that is 60 levels too dark changes hardly more than the target itself."""
    frame = data.astronaut()
    crop = align(frame, mtcnn([frame])[0][0], size)
    darker = np.clip(crop.image.astype(int) - 60, 0, 255).astype(np.uint8)
    mask = soft_mask(size)
    edge = in_frame(mask, crop.matrix, frame.shape)
    own = step_across(frame, edge)
    swapped = paste(frame, match_boundary_color(darker, crop.image, mask), crop.matrix, mask)
    assert step_across(swapped, edge) < 1.05 * own

    box = np.zeros((size, size), np.float32)
    box[size // 8 : -size // 8, size // 8 : -size // 8] = 1
    edge = in_frame(box, crop.matrix, frame.shape)
    assert step_across(paste(frame, darker, crop.matrix, box), edge) > 1.2 * step_across(frame, edge)


def test_a_real_face_is_found_and_swapped(mtcnn: Detector) -> None:
    frame = data.astronaut()
    swapper = Swapper(MeanColour(NONE), Pixels(), Negative(NONE, SIZE, 3, [3]))
    after = FaceSwapper.of(swapper, mtcnn, SIZE).swap(frame, frame)
    left, top, right, bottom = mtcnn([frame])[0][0].box.astype(int)
    changed = np.abs(after.astype(int) - frame).max(axis=2) > 0
    assert changed[top:bottom, left:right].mean() > 0.8
    outside = changed.copy()
    outside[top - 20 : bottom + 20, left - 20 : right + 20] = False
    assert not outside.any()
    assert (after >= 0).all() and after.shape == frame.shape


def test_a_run_is_converted_with(tmp_path: Path, untrained_run: Callable[..., Run]) -> None:
    run = untrained_run(tmp_path / "run")
    Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.png")

    converter = FaceSwapper(tmp_path / "run", "cpu")
    for name in ("one.png", "two.png"):
        swap_file(converter, tmp_path / "astronaut.png", tmp_path / "astronaut.png", tmp_path / name, provenance=PLAIN)
    after = read_image(tmp_path / "one.png")
    assert (after != data.astronaut()).any() and (after == read_image(tmp_path / "two.png")).all()
    assert not converter.swapper.training and not converter.detector.training
    says = converter.origin(ProvenanceOptions()).facts()
    assert says["model"] == run.recipe.name and says["recipe_sha256"] == run.recipe.digest()
    assert says["weights_sha256"] == digest(converter.swapper)


def test_what_is_no_run_is_refused(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"{tmp_path.name}: "):
        FaceSwapper(tmp_path)


def test_a_source_whom_the_model_cannot_paint_is_refused(folder: Path, expect_error: Callable[..., Any]) -> None:
    class Selective(Painter):
        def supports(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
            return z_id[:, 2] < 0

    converter = build(Selective)
    assert reds(converter.swap(RED, TARGET), 160, 120)
    with expect_error("target.png: "):
        swap_file(converter, folder / "target.png", folder / "red.png", folder / "out.png")
    assert not (folder / "out.png").exists()
