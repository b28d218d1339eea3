"""How swaps get into their pictures: masks, colours, blends, what is kept, and what results say of it."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from skimage import data
from swapping import swap_file, swap_target
from synthetic_video import make_video, scene

from fsframework.cli.main import fsf
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.registry import components
from fsframework.core.types import AlignedFace, Face, FaceBatch, SwapBatch
from fsframework.data.samples import somebody
from fsframework.faces.align import align, template, transform
from fsframework.faces.occlusion_mask import equal_eyes, occlusion_mask
from fsframework.faces.paste import (
    BLENDS,
    COLOURS,
    DEFAULT_PASTE,
    HULL,
    KEEPS,
    LANDMARKS,
    OVAL,
    Compositor,
    PasteOptions,
    paste,
    seam,
    soft_mask,
)
from fsframework.faces.select import largest
from fsframework.inference import video
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_images, to_tensor
from fsframework.media.video_io import probe
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.verify import verify

SIZE = 128
PLAIN = ProvenanceOptions(provenance=False)
WAYS = [PasteOptions(colour=colour) for colour in COLOURS] + [PasteOptions(blend="poisson")]
WAYS += [PasteOptions(OVAL), PasteOptions(LANDMARKS), PasteOptions(LANDMARKS, "histogram", "poisson", "occlusions")]
WAYS += [PasteOptions(keep="reconstruction-errors")]


@pytest.fixture(scope="module")
def source(converter: FaceSwapper) -> SourceIdentity:
    return converter.source(somebody(), "source")


@pytest.fixture(scope="module")
def face(converter: FaceSwapper) -> Face:
    """Of astronaut."""
    return largest(converter.find(data.astronaut(), "astronaut"))


@pytest.fixture(scope="module")
def crop(face: Face) -> AlignedFace:
    return align(data.astronaut(), face, SIZE)


@pytest.fixture(scope="module")
def covered(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """Astronaut behind a microphone, and where that is, (H, W) bool."""
    frame = data.astronaut()
    mouth, eyes = face.landmarks[3:].mean(axis=0), np.linalg.norm(face.landmarks[0] - face.landmarks[1])
    where = np.zeros(frame.shape[:2], np.uint8)
    head, foot = (mouth + eyes * np.array(each) for each in ((0.1, 0.2), (1.5, 2)))
    cv2.line(where, head.astype(int).tolist(), foot.astype(int).tolist(), 1, int(eyes * 0.35))
    cv2.circle(where, head.astype(int).tolist(), int(eyes * 0.35), 1, cv2.FILLED)
    frame[where > 0] = [45, 45, 55]
    return frame, where > 0


def painted(
    converter: FaceSwapper, pasting: PasteOptions, frame: np.ndarray, face: Face, source: SourceIdentity
) -> np.ndarray:
    converter.paster = Compositor(pasting, converter.size)
    try:
        return converter.swap_faces(frame, [(face, source)])
    finally:
        converter.paster = Compositor(DEFAULT_PASTE, converter.size)


def prepared(pasting: PasteOptions, image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One crop's image and mask."""
    return Compositor(pasting, len(image))(image[None], target[None], FaceBatch.of(to_tensor(target[None])))[0]


def duller(image: np.ndarray) -> np.ndarray:
    """The same picture in other colours and with less contrast."""
    return np.clip(image * np.array([0.5, 0.6, 0.4]) + [70, 20, 60], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mask_name", [OVAL, HULL])
def test_by_default_one_shift_and_the_hull(
    converter: FaceSwapper, face: Face, source: SourceIdentity, mask_name: str
) -> None:
    """With the oval, every pixel is what it was before there were options."""
    frame = data.astronaut()
    crop = align(frame, face, converter.size)
    landmarks = torch.from_numpy(transform(face.landmarks, crop.matrix)).float()[None]
    target = FaceBatch.of(to_tensor(crop.image[None]), landmarks)
    with torch.inference_mode():
        (swap,) = to_images(converter.swapper(SwapBatch.of(source.faces, target), source.z_id).image)
    mask = soft_mask(converter.size)
    if mask_name == HULL:
        five = part("estimators", "five-point-landmarks").build()
        five.load()
        hull = part("estimators", "hull-mask", forehead=0.4, shrink=0.02, soft=0.025).build()
        mask = hull.mask(five(target)[0].double().numpy(), converter.size)
        inwards = np.minimum(np.arange(converter.size), np.arange(converter.size)[::-1]) / (converter.size / 16)
        mask = mask * np.minimum(inwards[:, None], inwards).clip(0, 1).astype(np.float32)  # 0 at the crop's border
    edge = (mask > 0.05) & (mask < 0.95)
    shift = np.median(crop.image[edge].astype(np.float32) - swap[edge], axis=0)
    toned = np.rint(np.clip(swap + shift, 0, 255)).astype(np.uint8)
    expected = paste(frame, toned, crop.matrix, mask)
    np.testing.assert_array_equal(painted(converter, PasteOptions(mask_name), frame, face, source), expected)
    assert PasteOptions(HULL) == DEFAULT_PASTE


def test_the_default_needs_no_dlib(
    face: Face, source: SourceIdentity, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    face_swapper = FaceSwapper(device="cpu")
    assert (face_swapper.swap_faces(data.astronaut(), [(face, source)]) != data.astronaut()).any()
    with expect_error("dlib-landmarks"):
        FaceSwapper(device="cpu", pasting=PasteOptions(LANDMARKS))


def test_lab_brings_the_targets_mean_and_spread(crop: AlignedFace) -> None:
    made, mask = prepared(PasteOptions(colour="lab"), duller(crop.image), crop.image)
    own, wanted, before = (
        cv2.cvtColor(each.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[mask > 0.5]
        for each in (made, crop.image, duller(crop.image))
    )
    np.testing.assert_allclose(own.mean(axis=0), wanted.mean(axis=0), atol=1)
    np.testing.assert_allclose(own.std(axis=0), wanted.std(axis=0), atol=1.5)
    assert np.abs(before.mean(axis=0) - wanted.mean(axis=0)).max() > 8


def test_histogram_brings_the_targets_histogram(crop: AlignedFace) -> None:
    made, mask = prepared(PasteOptions(colour="histogram"), duller(crop.image), crop.image)
    shares = [5, 25, 50, 75, 95]
    own, wanted = (np.percentile(each[mask > 0.5], shares, axis=0) for each in (made, crop.image))
    np.testing.assert_allclose(own, wanted, atol=4)


def test_colours_may_stay_as_painted(crop: AlignedFace) -> None:
    image = duller(crop.image)
    np.testing.assert_array_equal(prepared(PasteOptions(colour="none"), image, crop.image)[0], image)


def test_a_seam_is_seen_and_poisson_has_none(crop: AlignedFace) -> None:
    target, image = crop.image, np.clip(crop.image.astype(int) + 60, 0, 255).astype(np.uint8)
    hard = (soft_mask(SIZE) > 0.5).astype(np.float64)
    edge = cv2.GaussianBlur(hard, (0, 0), 1)
    box = np.where(hard[..., None] > 0, image, target)
    assert seam(target, target, edge) == 1
    assert seam(box, target, edge) > 1.5
    still = np.eye(2, 3)
    results = {blend: prepared(PasteOptions(colour="none", blend=blend), image, target) for blend in BLENDS}
    seams = {blend: seam(paste(target, *made[:1], still, made[1]), target, made[1]) for blend, made in results.items()}
    assert seams["poisson"] < 1.05 and seams["poisson"] < seams["alpha"]
    ring = np.abs(soft_mask(SIZE) - 0.2) < 0.15
    off = {blend: np.abs(made[0].astype(int) - target)[ring].mean() for blend, made in results.items()}
    assert off["poisson"] < 0.3 * off["alpha"]


def test_a_seam_needs_an_edge_and_a_target_that_changes(crop: AlignedFace) -> None:
    flat = np.full_like(crop.image, 90)
    assert np.isnan(seam(crop.image, crop.image, np.ones((SIZE, SIZE))))
    assert np.isnan(seam(crop.image, flat, soft_mask(SIZE)))


@pytest.mark.parametrize("mask_name", [HULL, LANDMARKS])
def test_hulls_leave_ears_and_hair(crop: AlignedFace, mask_name: str) -> None:
    finder = part("estimators", "dlib-landmarks").build()
    finder.load()
    points = finder(FaceBatch.of(to_tensor(crop.image[None])))[0].numpy()
    five = torch.from_numpy(transform(crop.face.landmarks, crop.matrix)).float()[None]
    faces = FaceBatch.of(to_tensor(crop.image[None]), five)
    ((_, mask),) = Compositor(PasteOptions(mask_name), SIZE)(crop.image[None], crop.image[None], faces)

    def at(point: np.ndarray) -> float:
        x, y = point.round().astype(int)
        return float(mask[y, x])

    width = points[16] - points[0]
    assert at(points[0] - 0.12 * width) < 0.1 and at(points[16] + 0.12 * width) < 0.1  # ears
    up = points[27] - points[8]
    assert at(points[27] + 0.75 * up) < 0.1  # hair
    assert min(at(points[place]) for place in (27, 30, 33, 48, 54, 62)) > 0.95  # nose and mouth
    assert at(points[27] + 0.25 * up) > 0.5  # forehead
    assert mask[[0, -1]].max() == mask[:, [0, -1]].max() == 0


def test_where_no_mask_is_found_the_oval_serves(crop: AlignedFace) -> None:
    paster = Compositor(PasteOptions(LANDMARKS), SIZE)
    assert paster.mask_estimator is not None
    paster.mask_estimator.forward = lambda faces: torch.full((1, 1, SIZE, SIZE), torch.nan)  # type: ignore[method-assign]
    ((_, mask),) = paster(crop.image[None], crop.image[None], FaceBatch.of(to_tensor(crop.image[None])))
    np.testing.assert_array_equal(mask, soft_mask(SIZE))
    unknown = FaceBatch.of(to_tensor(crop.image[None]))  # without the five landmarks
    ((_, mask),) = Compositor(DEFAULT_PASTE, SIZE)(crop.image[None], crop.image[None], unknown)
    np.testing.assert_array_equal(mask, soft_mask(SIZE))


def test_poisson_leaves_what_is_too_small_to_alpha(crop: AlignedFace) -> None:
    image = duller(crop.image)
    dot = np.zeros((1, SIZE, SIZE), np.float32)
    dot[0, 64, 64] = 1
    faces = FaceBatch.of(to_tensor(crop.image[None]))
    ((made, mask),) = Compositor(PasteOptions(blend="poisson"), SIZE)(image[None], crop.image[None], faces, dot)
    assert mask[64, 64] > 0.9
    np.testing.assert_array_equal(made, image)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join((way.mask, way.colour, way.blend, way.keep)))
def test_every_way_swaps_whole_cut_and_tiny_faces_and_grey_ones(
    converter: FaceSwapper, face: Face, source: SourceIdentity, way: PasteOptions
) -> None:
    astronaut = data.astronaut()
    middle = int(face.landmarks[2, 0]) - 10  # left of which the face is cut off
    cut = np.ascontiguousarray(astronaut[:, middle:])
    moved = Face(face.box - [middle, 0, middle, 0], face.landmarks - [middle, 0], 1.0)
    tiny = cv2.resize(astronaut, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA)
    small = Face(face.box / 10, face.landmarks / 10, 1.0)
    grey = np.repeat(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    for frame, where in ((astronaut, face), (cut, moved), (tiny, small), (grey, face)):
        after = painted(converter, way, frame, where, source)
        change = np.abs(after.astype(int) - frame).max(axis=2)
        x, y = where.landmarks.mean(axis=0).round().astype(int)
        assert after.shape == frame.shape and change.max() > 15
        near = change[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
        assert near.mean() > 2
        right = int(where.box[2] + (where.box[2] - where.box[0]))
        assert not change[:, right:].any()
        if frame is cut:  # nothing holds the face to the target at the frame's border
            rows = slice(int(where.landmarks[0, 1]), int(where.landmarks[4, 1]))
            assert change[rows, 0].mean() > 0.6 * change[rows, 4].mean()
        if frame is grey:
            assert np.ptp(after, axis=2).max() == 0


def test_what_lies_in_front_is_large_or_reaches_out_of_the_face() -> None:
    target = np.full((SIZE, SIZE, 3), 128, np.uint8)
    face = np.zeros((SIZE, SIZE), np.float32)
    face[30:100, 30:100] = 1

    def kept(*region: slice) -> float:
        itself = target.copy()
        itself[region] = 200
        return float(occlusion_mask(target, itself, face)[region].mean())

    assert kept(slice(60, 70), slice(60, 70)) == 0  # a mouth
    assert kept(slice(60, 70), slice(95, 105)) > 0.9  # reaches out
    assert kept(slice(50, 80), slice(50, 80)) > 0.9  # large
    assert kept(slice(60, 62), slice(100, 102)) == 0  # noise
    assert occlusion_mask(target, target, face).max() == 0


@pytest.mark.parametrize("side", [0, 1])
def test_if_one_eye_is_covered_both_are(side: int) -> None:
    eyes = template(SIZE)[:2]
    mask = np.ones((SIZE, SIZE), np.float32)
    np.testing.assert_array_equal(equal_eyes(mask, eyes), mask)
    left, top = eyes[side].astype(int)
    mask[top - 6 : top + 7, left - 10 : left + 11] = 0
    other, height = eyes[1 - side].astype(int)
    equal = equal_eyes(mask, eyes)
    assert equal[height - 5 : height + 6, other - 5 : other + 6].max() < 0.1
    np.testing.assert_array_equal(equal[90:], 1)
    np.testing.assert_array_equal(equal[top - 6 : top + 7, left - 10 : left + 11], 0)
    assert np.isfinite(equal_eyes(mask, eyes - 10 * SIZE)).all()  # outside of the crop


def test_a_microphone_is_kept(
    converter: FaceSwapper, face: Face, source: SourceIdentity, covered: tuple[np.ndarray, np.ndarray]
) -> None:
    frame, where = covered
    errors = {}
    for keep in KEEPS:
        after = painted(converter, PasteOptions(keep=keep), frame, face, source)
        errors[keep] = np.abs(after.astype(int) - frame)[where].mean()
        nose = face.landmarks[:3].mean(axis=0).round().astype(int)
        assert np.abs(after.astype(int) - frame)[nose[1] - 5 : nose[1] + 5, nose[0] - 5 : nose[0] + 5].mean() > 4
    assert errors["occlusions"] < 0.25 * errors["nothing"] and errors["reconstruction-errors"] < 0.5 * errors["nothing"]


def test_what_is_in_front_is_kept_without_a_second_pass(
    converter: FaceSwapper,
    face: Face,
    source: SourceIdentity,
    covered: tuple[np.ndarray, np.ndarray],
) -> None:
    passes = []
    hook = converter.swapper.generator.register_forward_hook(lambda *_: passes.append(1))
    counts = {}
    for keep in KEEPS:
        passes.clear()
        painted(converter, PasteOptions(keep=keep), covered[0], face, source)
        counts[keep] = len(passes)
    hook.remove()
    assert counts["occlusions"] == counts["nothing"] < counts["reconstruction-errors"]


def test_both_eyes_behind_glasses_are_treated_alike(crop: AlignedFace) -> None:
    """Drawn glasses, with clear lenses: both eyes stay the target's; without glasses neither does."""
    compositor = Compositor(PasteOptions(keep="occlusions"), SIZE)
    eyes = transform(crop.face.landmarks, crop.matrix)[:2]
    unit = float(np.linalg.norm(eyes[1] - eyes[0]))
    worn = crop.image.copy()
    for eye in eyes:
        cv2.ellipse(worn, eye.astype(int).tolist(), (int(0.42 * unit), int(0.3 * unit)), 0, 0, 360, (30, 28, 26), 3)
    left, right = eyes[0] + [0.42 * unit, 0], eyes[1] - [0.42 * unit, 0]
    cv2.line(worn, left.astype(int).tolist(), right.astype(int).tolist(), (30, 28, 26), 3)
    means = []
    for image in (crop.image, worn):
        masks = compositor.visible_faces(FaceBatch.of(to_tensor(image[None])))
        assert masks is not None and masks.shape == (1, SIZE, SIZE) and masks.min() >= 0 and masks.max() <= 1
        boxes = [(slice(int(y) - 4, int(y) + 5), slice(int(x) - 6, int(x) + 7)) for x, y in eyes]
        means.append([float(masks[0][box].mean()) for box in boxes])
    assert min(means[0]) > 0.9 and max(means[1]) < 0.2


@pytest.mark.parametrize("size", [64, 128, 256])
def test_the_visible_face_is_the_same_at_every_size(size: int, face: Face) -> None:
    image = align(data.astronaut(), face, size).image
    masks = Compositor(PasteOptions(keep="occlusions"), size).visible_faces(FaceBatch.of(to_tensor(image[None])))
    assert masks is not None and masks.shape == (1, size, size)
    small = cv2.resize(masks[0], (32, 32), interpolation=cv2.INTER_AREA)
    assert small[16:22, 13:19].min() > 0.95 and small[:3].max() < 0.05 and small[:, :2].max() < 0.05


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"mask": "hull-mas"}, "mask: "),
        ({"mask": "soft"}, "mask: "),
        ({"mask": "ovall"}, "mask: "),
        ({"mask": "{use: hull-mas}"}, "mask: "),
        ({"mask": "dlib-landmarks"}, "mask: dlib-landmarks "),
        ({"mask": "{use: hull-mask, forehead: 9}"}, "mask: forehead: "),
        ({"mask": "{use: hull-mask, hair: 9}"}, "mask: hair: "),
        ({"mask": "{use"}, "mask: line 1: "),
        ({"mask": ""}, "mask: "),
        ({"colour": "red"}, "colour: "),
        ({"blend": "soft"}, "blend: "),
        ({"keep": "hands"}, "keep: "),
    ],
    ids=[
        "close",
        "unknown",
        "close to oval",
        "close in braces",
        "no masks",
        "range",
        "option",
        "yaml",
        "empty",
        "colour",
        "blend",
        "keep",
    ],
)
def test_what_is_unknown_is_said_in_one_line(
    options: dict[str, str], place: str, request: pytest.FixtureRequest, check_message: Callable[..., None]
) -> None:
    with pytest.raises(UserError) as caught:
        PasteOptions(**options)
    message = str(caught.value)
    assert message.startswith(place) and "\n" not in message
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    result = CliRunner().invoke(fsf, ["swap", "none.png", "none.png", "none.png", *words])
    assert isinstance(result.exception, UserError) and str(result.exception) == message
    foreign = request.node.callspec.id in ("range", "yaml")
    found = components("estimators")
    masks = [name for name, cls in found.items() if getattr(cls, "quantity", None) == "mask"]
    installed = {", ".join(found): "ESTIMATORS", ", ".join(masks): "MASKS"}
    check_message(message, installed, reason=foreign)


def test_an_untrained_mask_is_refused(expect_error: Callable[..., Any]) -> None:
    with expect_error("mask: face-segmenter "):
        Compositor(PasteOptions("{use: face-segmenter, weights: null}"), SIZE)


def test_results_depend_on_the_segmenter_that_keeps_occlusions() -> None:
    hashes = [
        Compositor(PasteOptions(mask, keep=keep), SIZE).sha256()
        for mask in ("oval", "face-segmenter")
        for keep in ("nothing", "occlusions")
    ]
    assert hashes[0] is None and hashes[1] == hashes[2] and hashes[3] not in hashes[:3]


def test_without_a_coarse_swap_reconstruction_errors_are_not_kept(
    monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    """A graph in ONNX hands on what the refiner made, which has the occlusions already."""
    recipe = SimpleNamespace(networks=SimpleNamespace(refiner=object()))
    monkeypatch.setattr("fsframework.models.store.recipe_at", lambda *_: recipe)
    monkeypatch.setattr("fsframework.models.store.is_onnx", lambda *_: True)
    with expect_error("swap.onnx: "):
        FaceSwapper("swap.onnx", pasting=PasteOptions(keep="reconstruction-errors"))


def test_results_say_how_they_were_pasted(converter: FaceSwapper, tmp_path: Path) -> None:
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    write_image(tmp_path / "target.png", data.astronaut(), synthetic=False)
    said = {}
    for name, pasting in (
        ("default", DEFAULT_PASTE),
        ("other", PasteOptions("{use: hull-mask, forehead: 0.1}", "lab", "poisson")),
    ):
        converter.paster = Compositor(pasting, converter.size)
        swap_file(converter, tmp_path / "source.png", tmp_path / "target.png", tmp_path / f"{name}.png")
        manifest = verify(tmp_path / f"{name}.png").manifest
        assert manifest is not None
        said[name] = manifest.facts.get("pasting")
    converter.paster = Compositor(DEFAULT_PASTE, converter.size)
    assert said == {"default": None, "other": "mask hull-mask, colour lab, blend poisson, keep nothing"}


def test_a_job_goes_on_only_with_equal_options(
    converter: FaceSwapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    write_image(tmp_path / "source.png", somebody(), synthetic=False)
    film, out = make_video(tmp_path / "film.mp4", [scene(number) for number in range(6)]), tmp_path / "out.mp4"

    def swap(pasting: PasteOptions, target: Path = film, to: Path = out) -> int:
        converter.paster = Compositor(pasting, converter.size)
        return swap_target(converter, target, to, tmp_path / "source.png", "largest", [], None, PLAIN)

    def interrupted(*_: object) -> None:
        raise UserError("interrupted")

    try:
        with monkeypatch.context() as patch, pytest.raises(UserError, match="interrupted"):
            patch.setattr(video, "join", interrupted)
            swap(DEFAULT_PASTE)
        (tmp_path / ".out.mp4.parts" / "0000.mp4").write_bytes(b"a piece that is there is not made again")
        with pytest.raises((UserError, ValueError, OSError)):
            swap(DEFAULT_PASTE)
        assert swap(PasteOptions(colour="lab")) == 0 and len(probe(out).times) == 6

        (tmp_path / "in").mkdir()
        write_image(tmp_path / "in" / "one.png", data.astronaut(), synthetic=False)
        assert swap(DEFAULT_PASTE, tmp_path / "in", tmp_path / "results") == 0
        with expect_error("results: "):
            swap(PasteOptions(LANDMARKS), tmp_path / "in", tmp_path / "results")
    finally:
        converter.paster = Compositor(DEFAULT_PASTE, converter.size)
