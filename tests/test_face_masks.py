"""The data set `face-masks`, whose masks are aligned like its images, and the wrapper `augmented`."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fsf_data.augmented import Augmented
from fsf_data.face_masks import CLASSES, FACE, FaceMasks, face_mask
from PIL import Image

from fsframework.core.components import ComponentOptions, Dataset, Detector
from fsframework.core.errors import EmptySplitError, UserError
from fsframework.core.part import Part, part
from fsframework.core.types import Face, Sample
from fsframework.faces.align import fit_similarity, template, transform, warp

SIZE = 64
LANDMARKS = np.array([[40, 60], [74, 52], [60, 80], [50, 98], [78, 92]], dtype=float)  # in pixels, of a tilted head
SKIN, GLASSES, EYE, HAIR = (CLASSES.index(name) for name in ("skin", "glasses", "left eye", "hair"))


class Fixed(Detector):
    """Finds the same face in every frame that is not black."""

    name = "fixed"

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        box = np.array([20.0, 30, 100, 110])
        return [[Face(box, LANDMARKS, 1.0)] if frame.any() else [] for frame in frames]


class FixedPart:
    name = "fixed"
    options = ComponentOptions()

    def build(self) -> Fixed:
        return Fixed(self.options)


def labels_of(number: int) -> np.ndarray:
    """An ellipse of skin under hair, (140, 120) uint8."""
    labels = np.zeros((140, 120), np.uint8)
    cv2.ellipse(labels, (60, 70), (42, 55), -10, 0, 360, SKIN, cv2.FILLED)
    labels[: 40 + number] = HAIR
    return labels


def png(pixels: np.ndarray, palette: bool = False) -> bytes:
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P")
        image.putdata(pixels.reshape(-1).tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pack(place: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return place


def portrait(number: int) -> np.ndarray:
    """The face of the labels white, the rest dark."""
    return np.where(np.isin(labels_of(number), FACE)[..., None], 255, 40 + number).repeat(3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve people with a mask, palette or grey, and one without."""
    members = {f"p{n}/p{n}.png": png(portrait(n)) for n in range(13)}
    members |= {f"masks/p{n}.png": png(labels_of(n), palette=n % 2 == 0) for n in range(12)}
    return pack(tmp_path_factory.mktemp("masks") / "faces.zip", members)


def opened(root: Path, cache: Path, split: str = "all", **options: Any) -> FaceMasks:
    data = FaceMasks(FaceMasks.Options(root=root, cache=cache, **options), SIZE, FixedPart(), split)
    data.load()
    return data


def test_pictures_with_a_mask_are_samples_and_people_are_apart(archive: Path, tmp_path: Path) -> None:
    data = opened(archive, tmp_path)
    assert set(data.people()) == {f"p{n}" for n in range(12)} and len(data) == 12
    assert data.names() == [f"{person}/{person}.png" for person in data.people()] and data.skipped == []
    train, test = (opened(archive, tmp_path, split, test_share=0.4) for split in ("train", "test"))
    assert len(train) and len(test) and len(train) + len(test) == 12
    assert not set(train.people()) & set(test.people())
    with pytest.raises(IndexError):
        data[12]


def test_a_mask_lies_where_its_face_does(archive: Path, tmp_path: Path) -> None:
    data = opened(archive, tmp_path)
    matrix = fit_similarity(LANDMARKS, template(SIZE))
    for index in range(len(data)):
        sample = data[index]
        number = int(sample.person[1:]) if sample.person else -1
        assert sample.valid_mask is not None and sample.valid_mask.any() and not sample.valid_mask.all()
        np.testing.assert_array_equal(sample.image, warp(portrait(number), matrix, SIZE))
        # The face is white, so its border is where the crop is halfway between white and the rest.
        grey, border = sample.image[..., 0].astype(float), (255 + 40 + number) / 2
        clear = np.abs(grey - border) > 1  # elsewhere rounding decides
        np.testing.assert_array_equal(~sample.valid_mask[clear], grey[clear] > border)
        np.testing.assert_allclose(sample.landmarks, transform(LANDMARKS, matrix), rtol=1e-5)


def test_masks_may_be_chosen_by_class_and_lie_in_a_folder(tmp_path: Path) -> None:
    for name, pixels in (("anna/1.png", portrait(3)), ("parsed/anna/1.png", labels_of(3))):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(png(pixels))
    hair = opened(tmp_path / "root", tmp_path, masks="parsed", face=(HAIR,))[0].valid_mask
    skin = opened(tmp_path / "root", tmp_path, masks="parsed")[0].valid_mask
    assert hair is not None and skin is not None
    assert not (~hair & ~skin).any() and (~hair).any() and (~skin).any()


def test_what_glasses_enclose_is_no_face() -> None:
    labels = np.full((100, 100), SKIN, np.uint8)
    for left in (20, 55):
        labels[40:56, left : left + 25] = GLASSES
        labels[44:52, left + 6 : left + 19] = EYE
    labels[46:48, 45:55] = GLASSES
    kept = face_mask(labels, FACE, GLASSES)
    assert not kept[44:52, 26:39].any() and not kept[44:52, 61:74].any()
    assert kept[58:].all() and kept[:38].all() and kept[50:56, 48:52].all()  # below, above, and the nose's bridge
    assert face_mask(labels, FACE, None)[44:52, 26:39].all()


@pytest.mark.parametrize("what", ["no masks", "colours", "size", "nobody"])
def test_what_is_wrong_is_said_in_one_line(what: str, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    mask = {
        "no masks": {},
        "colours": {"masks/a.png": png(portrait(0))},
        "size": {"masks/a.png": png(labels_of(0)[:90])},
        "nobody": {"masks/a.png": png(labels_of(0))},
    }[what]
    place = pack(tmp_path / "faces.zip", {"a/a.png": png(portrait(0)), **mask})
    split, share = ("test", 0.0) if what == "nobody" else ("all", 0.1)
    with expect_error("", kind=EmptySplitError if what == "nobody" else UserError):
        opened(place, tmp_path, split, test_share=share)


class One(Dataset):
    """Return a white ellipse with its mask, and itself as ground truth."""

    name = "one"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        image = warp(portrait(0), fit_similarity(LANDMARKS, template(SIZE)), SIZE)
        return Sample(image, "one", None, template(SIZE).astype(np.float32), image[..., 0] < 150, image)


def augmented(**options: float) -> Augmented:
    """`augmented` around `One`, with no change but the options'."""
    still = {name: 0.0 for name in ("rotation", "scale", "shift", "light", "colour", "blur", "noise")}
    built: Augmented = part("datasets", "augmented", data={"use": "orl"}, **(still | options)).build(
        SIZE, part("detectors", "mtcnn"), "train"
    )
    built.inner = One(ComponentOptions(), SIZE, None, "train")
    return built


def test_without_changes_a_target_stays() -> None:
    before, after = One(ComponentOptions(), SIZE, None, "train")[0], augmented().target(0, np.random.default_rng(0))
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.valid_mask, before.valid_mask)
    np.testing.assert_allclose(after.landmarks, before.landmarks, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_mask_landmarks_and_truth_move_with_the_image(seed: int) -> None:
    data = augmented(rotation=30.0, scale=0.3, shift=0.1)
    sample, before = data.target(0, np.random.default_rng(seed)), data[0]
    assert sample.valid_mask is not None and before.valid_mask is not None and sample.ground_truth is not None
    assert (sample.valid_mask != before.valid_mask).mean() > 0.02
    assert (sample.valid_mask != (sample.image[..., 0] < 150)).mean() < 0.01
    np.testing.assert_array_equal(sample.ground_truth, sample.image)
    matrix = fit_similarity(before.landmarks.astype(float), sample.landmarks.astype(float))
    np.testing.assert_allclose(transform(before.landmarks.astype(float), matrix), sample.landmarks, atol=1e-3)
    expected = warp(before.image, matrix, SIZE)
    assert np.abs(sample.image.astype(int) - expected).mean() < 0.5
    again = data.target(0, np.random.default_rng(seed))
    np.testing.assert_array_equal(again.image, sample.image)


@pytest.mark.parametrize("option", ["light", "colour", "blur", "noise"])
def test_colours_and_sharpness_change_alone(option: str) -> None:
    data = augmented(**{option: 0.05})
    changed = [
        np.abs(data.target(0, np.random.default_rng(seed)).image.astype(int) - data[0].image) for seed in range(9)
    ]
    assert np.mean(changed) > 0.2
    masks = [data.target(0, np.random.default_rng(seed)).valid_mask for seed in range(3)]
    for mask in masks:
        np.testing.assert_array_equal(mask, data[0].valid_mask)


def test_its_recipe_fits_the_data(archive: Path) -> None:
    """The data set of the recipe reads such an archive, and its occluders are subtracted from the face."""
    covered: Part = part(
        "datasets", "occluded", share=1.0, opacity=0.02, pool=8, data={"use": "face-masks", "root": str(archive)}
    )
    built = covered.build(SIZE, FixedPart(), "all")
    built.load()
    plain, target = built.inner[0], built.target(0, np.random.default_rng(1))
    assert (target.valid_mask & ~plain.valid_mask).any() and not (plain.valid_mask & ~target.valid_mask).any()
