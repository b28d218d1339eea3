"""Reversed pairs: the data set `swapped`, its pairs, and the losses on them."""

import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsf_data.swapped
import numpy as np
import pytest
import torch
import yaml
from fsf_data.swapped import Swapped
from fsf_faceshifter.hard_examples import HardExamples
from fsf_occluders.dataset import Occluded
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import UserError
from fsframework.core.part import Part, part
from fsframework.core.registry import registry
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, Sample, SwapBatch, SwapResult
from fsframework.data.collate import collate, collate_pairs, collate_pixels
from fsframework.data.train_pairs import TrainingPairs
from fsframework.evaluation.evaluate import dataset_of
from fsframework.faces.align import template
from fsframework.faces.color_transfer import match_boundary_color
from fsframework.faces.paste import soft_mask
from fsframework.media.image_io import write_image
from fsframework.media.tensor import grey, to_images, to_tensor
from fsframework.models import store
from fsframework.models.run import Run
from fsframework.recipe.build import build_swapper
from fsframework.recipe.check import check
from fsframework.recipe.schema import Pairs, Recipe
from fsframework.testing.contract import ContractError, check_component
from fsframework.training.trainer import StageTrainer, train
from fsframework.utils.weights import load_state, save_state

SIZE = 32
PEOPLE, PICTURES = 4, 3
ALONE = PEOPLE * PICTURES  # the index of the picture whose person has no other


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of aligned crops: a smooth gradient of one colour a person, one grey picture, one person alone."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 60, SIZE)
    for person in range(PEOPLE + 1):
        colour = rng.integers(60, 160, 3)
        (folder / f"p{person}").mkdir()
        for picture in range(PICTURES if person < PEOPLE else 1):
            image = colour + ramp[:, None, None] * rng.random(3) + ramp[None, :, None] * rng.random(3)
            image = image.clip(0, 255).astype(np.uint8)
            write_image(
                folder / f"p{person}" / f"{picture}.png", image if person + picture else grey(image), synthetic=False
            )
    return folder


NETWORKS = {
    "identity": {"use": "dlib-resnet"},
    "attributes": {"use": "aei-attributes", "width": 0.25},
    "generator": {"use": "aad-generator", "width": 0.125},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights."""
    file = tmp_path_factory.mktemp("model") / "frozen.safetensors"
    content = {"name": "frozen", "size": SIZE, "data": {"use": "orl"}, "networks": NETWORKS}
    recipe = Recipe.parse(yaml.safe_dump(content), "frozen")
    torch.manual_seed(3)
    swapper = build_swapper(recipe)
    state = {f"{name}.{key}": value for name, net in swapper.trained_parts() for key, value in net.state_dict().items()}
    save_state(file, state, {"recipe": recipe.dump_yaml()})
    return file


@pytest.fixture
def swapped(faces: Path, model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Build and load the data set, with options."""

    def build(size: int = SIZE, split: str = "train", **options: Any) -> Any:
        inner = {"use": "face-folder", "root": str(faces), "layout": "aligned", "test_share": 0.0}
        inner["cache"] = str(tmp_path / "cache")
        given = {"model": str(model), "cache": tmp_path / "cache", "data": inner, **options}
        dataset = part("datasets", "swapped", **given).build(size, None, split)
        dataset.load()
        return dataset

    return build


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on processors with and without bfloat16."""
    monkeypatch.setattr(fsf_data.swapped, "wants_bf16", lambda *_: False)


def any_swapper() -> Swapper:
    """Return the method in training, which the swaps do not depend on."""
    return Swapper(nn.Linear(1, 1))  # type: ignore[arg-type]


def expected_swaps(data: Any, model: Path) -> list[np.ndarray]:
    """Return the model's coarse swaps by the data set's plans, one pair at a time, in grey for grey targets."""
    swapper, swaps = store.load(model, "cpu").swapper, []
    for target, plan in enumerate(data.plans()):
        batches = [collate([data.inner[index]], [0], np.zeros(1)) for index in (plan.source, target)]
        with torch.inference_mode():
            image = to_images(swapper.coarse(SwapBatch.of(*batches)).image)[0]
        swaps.append(image)
    return swaps


def near(image: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two images differ by rounding only."""
    return bool(np.abs(image.astype(int) - other).max() <= 1)


@pytest.mark.parametrize("composes", [False, True])
def test_a_generators_mask_is_applied_once(composes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    painted, mask = torch.full((1, 3, SIZE, SIZE), 0.8), torch.full((1, 1, SIZE, SIZE), 0.5)
    image = (painted - 0.6) / 2 if composes else painted  # the target is -0.6 everywhere

    class Painter(nn.Module):
        refiner = None
        generator = nn.Module()

        def forward(self, batch: SwapBatch) -> SwapResult:
            return SwapResult(image, image, torch.zeros(1, 3), mask=mask)

    swapper = Painter()
    swapper.generator.composes = composes  # type: ignore[assignment]
    trained = store.Trained(None, swapper, torch.device("cpu"))  # type: ignore[arg-type]
    monkeypatch.setattr(store, "load", lambda *arguments: trained)
    frozen = fsf_data.swapped._Frozen(Swapped.Options(model="painter"), SIZE, None)
    grey_levels = np.full((SIZE, SIZE, 3), round(127.5 * 0.4), np.uint8)
    sample = Sample(grey_levels, "a", "a", template(SIZE))
    found = frozen([sample], [sample], [False])[0]
    assert near(found, np.full((SIZE, SIZE, 3), round(127.5 * (1 + 0.1))))


def test_targets_are_the_models_swaps_and_truths_the_faces(swapped: Callable[..., Any], model: Path) -> None:
    data = swapped(pasted=0.0)
    assert data.is_reversible and not data.inner.is_reversible
    state = data.prepare(any_swapper())
    assert state.keys() == {"faces"} and state["faces"].shape == (32,)
    persons = data.persons()
    expected = expected_swaps(data, model)
    assert len(expected) == len(data) == PEOPLE * PICTURES + 1
    for index, (swap, plan) in enumerate(zip(expected, data.plans(), strict=True)):
        assert not plan.pasted and persons[plan.source] != persons[index]
        target = data.reversed_target(index, np.random.default_rng(0))
        assert near(target.image, grey(swap) if index == 0 else swap)
        np.testing.assert_array_equal(target.ground_truth, data.inner[index].image)
        assert target.valid_mask is not None and target.valid_mask.all()
        assert (target.name, target.person) == (data[index].name, data[index].person)
        assert not near(target.image, data[index].image)  # a swap that differs
    assert len({plan.source for plan in data.plans()}) > 3
    np.testing.assert_array_equal(data[1].image, data.inner[1].image)  # sources and other targets stay
    np.testing.assert_array_equal(data.target(1, np.random.default_rng(0)).image, data.inner[1].image)


def test_pasted_swaps_lie_in_the_real_picture(swapped: Callable[..., Any], model: Path) -> None:
    data = swapped(pasted=1.0)
    data.prepare(any_swapper())
    oval = soft_mask(SIZE)
    for index, swap in enumerate(expected_swaps(data, model)):
        truth = data[index].image
        matched = match_boundary_color(swap, truth, oval)
        expected = np.rint(oval[..., None] * matched + (1 - oval[..., None]) * truth).astype(np.uint8)
        image = data.reversed_target(index, np.random.default_rng(0)).image
        assert near(image, grey(expected) if index == 0 else expected)
        np.testing.assert_array_equal(image[oval == 0], truth[oval == 0])
    some = [plan.pasted for plan in swapped(pasted=0.5).plans()]
    assert 2 < sum(some) < len(some) - 2


def test_a_refiner_takes_part_if_it_should(swapped: Callable[..., Any], tmp_path: Path) -> None:
    content = {"name": "refined", "size": SIZE, "data": {"use": "orl"}, "networks": dict(NETWORKS)}
    content["networks"]["refiner"] = {"use": "hear-net", "width": 0.125}  # type: ignore[index]
    recipe = Recipe.parse(yaml.safe_dump(content), "refined")
    torch.manual_seed(4)
    state = {
        f"{name}.{key}": value
        for name, net in build_swapper(recipe).trained_parts()
        for key, value in net.state_dict().items()
    }
    save_state(tmp_path / "refined.safetensors", state, {"recipe": recipe.dump_yaml()})
    images = []
    for refine in (False, True):
        data = swapped(model=str(tmp_path / "refined.safetensors"), pasted=0.0, refine=refine)
        data.prepare(any_swapper())
        images.append(data.swaps.images)
        (plan, *_) = data.plans()
    batches = [collate([data.inner[index]], [0], np.zeros(1)) for index in (plan.source, 0)]
    trained = store.load(tmp_path / "refined.safetensors", "cpu").swapper
    with torch.inference_mode():
        result = trained(SwapBatch.of(*batches))
    for stored, image in zip(images, (result.coarse, result.image), strict=True):
        assert near(stored[0], grey(to_images(image)[0]))
    assert not near(*(image[0] for image in images))


def test_swaps_are_made_once(swapped: Callable[..., Any], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    load = store.load

    def counted(where: Any, *rest: Any) -> Any:
        made.append(str(where))
        return load(where, *rest)

    monkeypatch.setattr(store, "load", counted)
    first = swapped()
    state = first.prepare(any_swapper())
    assert made == [str(model)]
    again, restored = swapped(), swapped()
    assert np.array_equal(again.prepare(any_swapper())["faces"], state["faces"])
    restored.restore(state)
    assert made == [str(model)]
    for other in (again, restored, pickle.loads(pickle.dumps(first))):
        np.testing.assert_array_equal(other.swaps.images, first.swaps.images)
    assert len(pickle.dumps(first.swaps)) < 500 < first.swaps.images.nbytes  # its path, no network and no image
    others: list[dict[str, Any]] = [{"seed": 1}, {"pasted": 0.1}, {"refine": True}]
    for number, options in enumerate(others, 2):
        swapped(**options).prepare(any_swapper())
        assert len(made) == number
    assert swapped(seed=1).plans() != first.plans() == again.plans()


def test_two_processes_do_not_make_them_twice(swapped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    write = Swapped._write

    def counted(self: Swapped, folder: Path, device: Any) -> None:
        made.append(1)
        write(self, folder, device)

    monkeypatch.setattr(Swapped, "_write", counted)
    datasets = [swapped(), swapped()]
    with ThreadPoolExecutor(2) as pool:  # a lock of a file excludes any two that opened it
        states = list(pool.map(lambda data: data.prepare(any_swapper()), datasets))
    assert made == [1] and np.array_equal(states[0]["faces"], states[1]["faces"])
    np.testing.assert_array_equal(datasets[0].swaps.images, datasets[1].swaps.images)


def test_lost_swaps_are_made_again_for_the_same_faces_only(
    swapped: Callable[..., Any], tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    data = swapped()
    state = data.prepare(any_swapper())
    before = np.array(data.swaps.images)
    for folder in (tmp_path / "cache").glob("swaps-*[0-9a-f]"):
        shutil.rmtree(folder)
    again = swapped()
    again.restore(state)
    np.testing.assert_array_equal(again.swaps.images, before)
    (folder,) = (path for path in (tmp_path / "cache").glob("swaps-*") if path.is_dir())
    (folder / "images.npy").write_bytes(b"cut")
    damaged = swapped()
    damaged.restore(state)
    np.testing.assert_array_equal(damaged.swaps.images, before)
    with expect_error("swapped"):
        swapped().restore({"faces": np.zeros(32, np.uint8)})


def test_mistakes_are_one_line(
    swapped: Callable[..., Any], model: Path, tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    with expect_error("swapped: model", hide={str(model): "MODEL"}):
        swapped(size=64)
    with expect_error("swapped: model", hide={", ".join(sorted(registry().models)): "MODELS"}):
        swapped(model="faceshifter-of-nobody")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with expect_error("swapped: model", hide={"Expecting value: line 1 column 1 (char 0)": "REASON"}):
        swapped(model=str(tmp_path / "broken.safetensors"))
    with expect_error("swapped: model"):
        swapped(model="model.onnx")
    content = {"name": "r", "size": SIZE, "data": {"use": "orl"}, "networks": {"identity": {"use": "dlib-resnet"}}}
    text = Recipe.parse(yaml.safe_dump(content), "r").dump_yaml()
    save_state(tmp_path / "recogniser.safetensors", {"x": torch.zeros(1)}, {"recipe": text})
    with expect_error("swapped: model"):
        swapped(model=str(tmp_path / "recogniser.safetensors"))
    swapped(split="all", model="faceshifter-of-nobody")  # the model is for training only
    with pytest.raises(RuntimeError, match="prepare"):
        swapped().reversed_target(0, np.random.default_rng(0))


def test_reversed_pairs_show_swaps_of_the_sources_person(swapped: Callable[..., Any]) -> None:
    data = swapped()
    data.prepare(any_swapper())
    persons = data.persons()
    settings = Pairs(same=0.2, same_person=0.1, reversed=0.5, mirror=True, grey=0.3)
    pairs = [TrainingPairs(data, settings, [0, 0])[number] for number in range(260)]
    kinds = [pair.reversed for pair in pairs]
    assert sum(kinds) == pytest.approx(130, abs=30)
    seen = set()
    for pair in pairs:
        if not pair.reversed:
            assert pair.target.ground_truth is None
            continue
        assert persons[pair.source_index] == persons[pair.target_index]
        assert (pair.source_index == pair.target_index) == (pair.target_index == ALONE)
        np.testing.assert_array_equal(pair.source.image, data[pair.source_index].image)
        image, truth = data.swaps.images[pair.target_index], data[pair.target_index].image
        ways = {
            (mirror, colour): tuple(
                (grey(each) if colour else each)[:, :: -1 if mirror else 1] for each in (image, truth)
            )
            for mirror in (False, True)
            for colour in (False, True)
        }
        fits = [
            way
            for way, (swap, real) in ways.items()
            if np.array_equal(pair.target.image, swap) and np.array_equal(pair.target.ground_truth, real)  # type: ignore[arg-type]
        ]
        assert fits
        seen |= {fits[0]}
    assert len(seen) == 4  # mirrored or not, grey or not


def test_pairs_depend_on_their_number_and_others_stay(swapped: Callable[..., Any]) -> None:
    data = swapped()
    data.prepare(any_swapper())
    before = TrainingPairs(data, Pairs(same=0.2, same_person=0.2, mirror=True), [5, 1])
    after = TrainingPairs(data, Pairs(same=0.2, same_person=0.2, reversed=0.3, mirror=True), [5, 1])
    backwards = TrainingPairs(data, Pairs(same=0.2, same_person=0.2, reversed=0.3, mirror=True), [5, 1])
    numbers = range(60)
    again = {number: backwards[number] for number in reversed(numbers)}
    for number in numbers:
        one, other = after[number], again[number]
        assert one[1::2] == other[1::2]
        np.testing.assert_array_equal(one.target.image, other.target.image)
        if not one.reversed:
            assert (one.source_index, one.target_index) == (before[number].source_index, before[number].target_index)
            np.testing.assert_array_equal(one.target.image, before[number].target.image)
        assert one.target_index == before[number].target_index


def test_batches_tell_reversed_pairs_from_same_ones(swapped: Callable[..., Any]) -> None:
    data = swapped()
    data.prepare(any_swapper())
    pairs = TrainingPairs(data, Pairs(same=0.3, reversed=0.4), [0, 0])
    drawn = [pairs[number] for number in range(40)]
    assert any(pair.reversed and pair.target_index == ALONE for pair in drawn)
    batch = pairs.batch(drawn).to_float()
    assert batch.reversed is not None and batch.reversed.tolist() == [pair.reversed for pair in drawn]
    same = [pair.source_index == pair.target_index and not pair.reversed for pair in drawn]
    assert batch.same.tolist() == same and any(same)
    assert batch.supervised.tolist() == [one or pair.reversed for one, pair in zip(same, drawn, strict=True)]
    assert torch.equal(batch.valid_mask.amin(dim=(1, 2, 3)) == 1, batch.supervised)
    for row, pair in enumerate(drawn):
        real = to_tensor(data[pair.target_index].image[None])[0]
        assert torch.equal(batch.ground_truth[row], real) and torch.equal(batch.attribute_truth[row], real)
        assert torch.equal(batch.target.image[row], real) == (not pair.reversed)
    # Without the option nothing is there, so that losses compute what they did.
    plain = TrainingPairs(data, Pairs(same=0.3), [0, 0])
    batch = plain.batch([plain[number] for number in range(4)]).to_float()
    assert batch.reversed is None and batch.attribute_truth is batch.target.image
    assert torch.equal(batch.supervised, batch.same)
    assert pairs.batch([pair for pair in drawn if not pair.reversed]).reversed is not None  # one layout for all steps


class Maps(nn.Module):
    """Attribute maps: the image at two sizes."""

    def forward(self, batch: FaceBatch) -> list[Tensor]:
        return [F.avg_pool2d(batch.image, 2), batch.image]


@pytest.fixture
def swap() -> tuple[SwapBatch, SwapResult, Swapper]:
    """A same pair, two reversed ones and a usual one, with a random result."""
    torch.manual_seed(0)
    images = torch.rand(3, 4, 3, SIZE, SIZE) * 2 - 1
    source, target = FaceBatch.of(images[0]), FaceBatch.of(images[1])
    same, swapped = torch.tensor([True, False, False, False]), torch.tensor([False, True, True, False])
    truth = torch.where(swapped[:, None, None, None], torch.rand(4, 3, SIZE, SIZE) * 2 - 1, target.image)
    valid = (same | swapped)[:, None, None, None].float().expand(4, 1, SIZE, SIZE).clone()
    valid[3, :, :4] = 1  # an occluder of the usual pair
    swapper = Swapper(nn.Identity())  # type: ignore[arg-type]
    swapper.attributes = Maps()  # type: ignore[assignment]
    result = SwapResult(images[2], images[2] / 2, torch.zeros(4, 1), Maps()(target))
    return SwapBatch(source, target, same, truth, valid, swapped), result, swapper


def loss(name: str, **options: object) -> Any:
    torch.manual_seed(1)
    built = part("losses", name, **options).build()
    built.load()
    return built


def test_reconstruction_is_of_the_real_face(swap: tuple[SwapBatch, SwapResult, Swapper]) -> None:
    batch, result, _ = swap
    squares = ((result.image - batch.ground_truth) ** 2).numpy().astype(np.float64)
    rows = [0.5 * squares[row].mean() for row in range(3)]
    assert loss("reconstruction")(*swap).item() == pytest.approx(np.mean(rows), rel=1e-5)
    assert loss("reconstruction", region="all")(*swap).item() == pytest.approx(sum(rows) / 4, rel=1e-5)
    occluder = 0.5 * squares[3, :, :4].mean()
    valid = loss("reconstruction", region="valid")(*swap).item()
    assert valid == pytest.approx((sum(rows) + occluder) / 4, rel=1e-5)
    coarse = np.abs((result.coarse - batch.ground_truth).numpy().astype(np.float64))[:3].mean()
    found = loss("reconstruction", target="coarse", distance="absolute")(*swap).item()
    assert found == pytest.approx(coarse, rel=1e-5)


def test_dissimilarity_is_of_the_real_face(swap: tuple[SwapBatch, SwapResult, Swapper]) -> None:
    batch, result, swapper = swap
    perfect = replace(result, coarse=batch.ground_truth.index_fill(0, torch.tensor([3]), 0.0))
    assert loss("dssim")(batch, perfect, swapper).item() == pytest.approx(0, abs=1e-6)
    third = replace(result, coarse=torch.where(torch.arange(4)[:, None, None, None] == 1, -1, 1) * perfect.coarse)
    alone = replace(batch, same=torch.tensor([False, True, False, False]), reversed=None)
    expected = loss("dssim")(alone, third, swapper).item() / 3  # one of three pairs is wrong
    assert expected > 0.1 and loss("dssim")(batch, third, swapper).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("detach", [False, True])
def test_attributes_are_compared_on_other_pairs_only(swap: tuple[SwapBatch, SwapResult, Swapper], detach: bool) -> None:
    batch, result, swapper = swap
    image = result.image.clone().requires_grad_()
    found = loss("attribute", detach=detach)(batch, replace(result, image=image), swapper)
    expected = 0.0
    for mine, theirs in zip(Maps()(FaceBatch.of(result.image)), result.z_att, strict=True):
        rows = ((mine - theirs) ** 2).double().mean(dim=(1, 2, 3))
        expected += 0.5 * float(rows[0] + rows[3]) / 4
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert image.grad is not None
    assert [bool(row.abs().sum() > 0) for row in image.grad] == [True, False, False, True]
    nothing = replace(batch, reversed=torch.zeros(4, dtype=torch.bool))
    assert loss("attribute")(nothing, result, swapper).item() == pytest.approx(
        loss("attribute")(replace(batch, reversed=None), result, swapper).item(), rel=1e-6
    )


def test_landmarks_and_eyes_are_those_of_the_real_face(swap: tuple[SwapBatch, SwapResult, Swapper]) -> None:
    batch, result, swapper = swap
    right = replace(result, image=batch.attribute_truth)
    wrong = replace(result, image=batch.target.image)
    assert not torch.equal(right.image[1], wrong.image[1]) and torch.equal(right.image[3], wrong.image[3])
    for name, options in (("landmarks", {"shift": 0.0}), ("eyes", {"learn": 0})):
        assert loss(name, **options)(batch, right, swapper).item() == pytest.approx(0, abs=1e-6)
        assert loss(name, **options)(batch, wrong, swapper).item() > 1e-4
        plain = replace(batch, reversed=None)
        assert loss(name, **options)(plain, wrong, swapper).item() == pytest.approx(0, abs=1e-6)


def test_the_discriminator_sees_real_faces(swap: tuple[SwapBatch, SwapResult, Swapper]) -> None:
    batch, result, swapper = swap
    gan = loss("hinge-gan", width=8, layers=2, scales=1, feature_matching_weight=1.0)
    bare = loss("hinge-gan", width=8, layers=2, scales=1)
    real = replace(result, image=batch.ground_truth)
    assert gan(batch, real, swapper).item() == pytest.approx(bare(batch, real, swapper).item(), abs=1e-6)
    ((_, logits),) = gan.discriminate(torch.cat([batch.ground_truth, result.image]))
    expected = F.relu(1 - logits[:4]).mean() + F.relu(1 + logits[4:]).mean()
    assert gan.critic(batch, result).item() == pytest.approx(expected.item(), rel=1e-5)


def test_masks_on_reversed_pairs_are_whole(swap: tuple[SwapBatch, SwapResult, Swapper]) -> None:
    """Known pixels of a usual pair are an occluder's; those of a reversed one are all."""
    batch, result, swapper = swap
    estimator = nn.Module()
    estimator.forward = lambda faces: torch.ones(len(faces.image), 1, SIZE, SIZE)  # type: ignore[assignment]
    masks = loss("mask", network="refiner")
    masks.mask = estimator
    blend = part("refiners", "blend", mask={"use": "hull-mask"}).build(SIZE)
    blend.mask = estimator
    swapper.refiner = blend
    assert masks(batch, result, swapper).item() == pytest.approx(4 / SIZE / 4)  # four rows of one of four pairs


class Heads(Dataset):
    """Four faces and their inverse as swaps, without a model."""

    is_reversible = True

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        image = np.full((64, 64, 3), 90 + 20 * index, np.uint8)
        return Sample(image, f"h{index}", f"p{index}", template(64))

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        sample = self[index]
        return replace(sample, image=255 - sample.image, ground_truth=sample.image, valid_mask=np.ones((64, 64), bool))


class HeadsPart(Part):
    """Names `Heads`, which no plugin registers."""

    def build(self, *args: Any) -> Any:
        return Heads(ComponentOptions(), *args)


HEADS = HeadsPart("datasets", "heads", None)


def test_occluders_cover_swap_and_real_face_alike() -> None:
    data = Occluded(Occluded.Options(data=HEADS, share=1.0, both=0.5), 64, None, "train")
    data.load()
    assert data.is_reversible
    covered = 0
    for seed in range(6):
        sample = data.reversed_target(seed % 4, np.random.default_rng(seed))
        again = data.reversed_target(seed % 4, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample.image, again.image)
        assert sample.valid_mask is not None and sample.valid_mask.all() and sample.ground_truth is not None
        inner = Heads(ComponentOptions(), 64, None, "train").reversed_target(seed % 4, np.random.default_rng(0))
        changed = (sample.ground_truth != inner.ground_truth).any(axis=2)
        opaque = (sample.image == sample.ground_truth).all(axis=2)
        untouched = (sample.image == inner.image).all(axis=2)
        assert opaque[changed].mean() > 0.3  # the rest are its edge and its shadow
        assert (changed | untouched)[~opaque].mean() > 0.9
        covered += opaque.any()
    assert covered >= 5
    bare = Occluded(Occluded.Options(data=HEADS, share=0.0), 64, None, "train")
    bare.load()
    assert (bare.reversed_target(1, np.random.default_rng(0)).image == 255 - 110).all()


def test_selected_faces_have_their_own_swaps() -> None:
    data = HardExamples(HardExamples.Options(data=HEADS), 64, None, "train")
    data.load()
    data.chosen = np.array([1, 3])
    assert [int(data.reversed_target(index, np.random.default_rng(0)).image[0, 0, 0]) for index in (0, 1)] == [145, 105]


def test_swaps_of_selected_faces(swapped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper around `hard-examples` swaps the selected faces, and saves its state too."""
    errors = np.arange(13, dtype=np.float32)[::-1]
    monkeypatch.setattr("fsf_faceshifter.hard_examples.heuristic_errors", lambda data, swapper: errors.copy())
    inner = {"use": "hard-examples", "share": 0.4, "data": swapped().options.data}
    data, other = swapped(data=inner), swapped(data=inner)
    state = data.prepare(any_swapper())
    assert state.keys() == {"faces", "data.index", "data.error"} and len(data) == 5
    assert data.swaps.images.shape == (5, SIZE, SIZE, 3)
    other.restore(state)
    np.testing.assert_array_equal(other.swaps.images, data.swaps.images)
    np.testing.assert_array_equal(other.reversed_target(4, np.random.default_rng(0)).ground_truth, data.inner[4].image)


def training_recipe(faces: Path, model: Path, cache: Path, **stage: Any) -> Recipe:
    inner = {"use": "face-folder", "root": str(faces), "layout": "aligned", "test_share": 0.0, "cache": str(cache)}
    content = {
        "name": "tiny",
        "size": SIZE,
        "data": inner,
        "networks": NETWORKS,
        "stages": [
            {
                "name": "aei-net",
                "train": ["attributes", "generator"],
                "data": {"use": "swapped", "model": str(model), "cache": str(cache)},
                "pairs": {"same": 0.25, "reversed": 0.5, "mirror": True},
                "losses": [
                    {"use": "hinge-gan", "width": 8, "layers": 2, "scales": 1, "feature_matching_weight": 1.0},
                    {"use": "attribute", "weight": 10.0},
                    {"use": "identity", "weight": 5.0},
                    {"use": "reconstruction", "weight": 10.0},
                ],
                "optimizer": {"lr": 1e-3},
                "steps": 5,
                "batch_size": 4,
                "checkpoint_every": 2,
                **stage,
            }
        ],
    }
    return Recipe.parse(yaml.safe_dump(content), "tiny.yaml")


def test_resume_is_bit_exact(faces: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = training_recipe(faces, model, tmp_path / "cache")
    check(recipe)
    whole = Run.open(recipe, tmp_path / "whole", device="cpu")
    train(whole)
    original, steps = StageTrainer.step, list[int]()

    def interrupted(self: StageTrainer, step: int, *values: Any) -> Any:
        steps.append(step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return original(self, step, *values)

    monkeypatch.setattr(StageTrainer, "step", interrupted)
    run = Run.open(recipe, tmp_path / "cut", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(run)
    for folder in (path for path in (tmp_path / "cache").glob("swaps-*") if path.is_dir()):
        shutil.rmtree(folder)  # they are made again
    resumed = Run.open(recipe, tmp_path / "cut", resume=True, device="cpu")
    train(resumed)
    assert steps == [0, 1, 2, 3, 2, 3, 4]
    one, other = (load_state(run.weights_file(recipe.stages[0])) for run in (whole, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert {key.split(".")[0] for key in one} == {"attributes", "generator"}  # the frozen model is not part of it


def test_recognisers_of_the_batch_see_the_real_source(faces: Path, model: Path, tmp_path: Path) -> None:
    recipe = training_recipe(faces, model, tmp_path / "cache", precompute_embeddings=False, steps=2)
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    train(run)
    assert run.finished(recipe.stages[0])
    again = training_recipe(faces, tmp_path / "run", tmp_path / "cache", steps=1)  # a run's folder is a model too
    train(Run.open(again, tmp_path / "again", device="cpu"))
    assert len([path for path in (tmp_path / "cache").glob("swaps-*") if path.is_dir()]) == 2


def test_reversed_pairs_need_swaps(
    faces: Path, model: Path, tmp_path: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    recipe = training_recipe(faces, model, tmp_path, data={"use": "occluded", "pool": 4})
    with expect_error("stages.0.pairs.reversed"):
        check(recipe)
    with pytest.raises(UserError) as caught:
        training_recipe(faces, model, tmp_path, pairs={"same": 0.4, "same_person": 0.3, "reversed": 0.4})
    check_message(str(caught.value), hide={str(model): "MODEL", str(faces): "FACES"})
    whole = {"same": 0.1, "same_person": 0.2, "reversed": 0.7}
    assert training_recipe(faces, model, tmp_path, pairs=whole).stages[0].pairs.reversed == 0.7
    nested = {"use": "occluded", "pool": 4, "data": {"use": "swapped", "model": str(model)}}
    check(training_recipe(faces, model, tmp_path, data=nested))


@pytest.mark.parametrize("inside", ["alone", "mixed"])
def test_a_wrapper_without_a_data_set_is_one_line(
    tmp_path: Path, inside: str, expect_error: Callable[..., Any]
) -> None:
    wrapper: dict[str, Any] = {"use": "augmented"}
    data = wrapper if inside == "alone" else {"use": "mixed", "parts": {"a": {"share": 1, "data": wrapper}}}
    recipe = Recipe.load("smoke", [f"data={json.dumps(data)}", "stages.0.data={use: orl}", "stages.1.data={use: orl}"])
    with expect_error("data: ", hide={}):
        dataset_of(recipe, None)
    with expect_error("data: ", hide={}):
        check(Recipe.load("smoke", [f"data={json.dumps(data)}"]))


def test_collating_without_reversed_pairs_is_as_before() -> None:
    samples = [Heads(ComponentOptions(), 64, None, "train")[index] for index in (0, 1)]
    side = collate_pixels(samples, [0, 1], np.array([0, 1, 2, 3]))
    assert collate_pairs(side, side, samples).reversed is None
    both = collate_pairs(side, side, samples, [False, True])
    assert both.same.tolist() == [True, False]


class Broken(Swapped):
    """Swapped faces with a mistake."""

    change: Any = None

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        return replace(super().reversed_target(index, rng), **Broken.change(self.inner[index]))


def test_the_data_set_keeps_its_contract(tmp_path: Path) -> None:
    """At the contract's 64 px, with the model that ships."""
    rng = np.random.default_rng(0)
    for person in range(4):
        (tmp_path / f"p{person}").mkdir()
        for picture in range(2):
            image = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            write_image(tmp_path / f"p{person}" / f"{picture}.png", image, synthetic=False)
    inner = {"use": "face-folder", "root": str(tmp_path), "layout": "aligned", "test_share": 0.5}
    inner["cache"] = str(tmp_path / "cache")
    options: dict[str, Any] = {"model": "faceshifter-lfw-64", "data": inner, "cache": str(tmp_path / "cache")}
    check_component(Swapped, **options)

    changes: list[tuple[Callable[[Sample], dict[str, Any]], str]] = [
        (lambda sample: {"image": sample.image}, "must have a ground_truth that is another image"),
        (lambda sample: {"ground_truth": None}, "must have a ground_truth that is another image"),
        (lambda sample: {"valid_mask": None}, "must be True everywhere"),
        (lambda sample: {"image": sample.image[:8]}, "must be"),
        (lambda sample: {"image": np.random.randint(0, 255, (64, 64, 3), np.uint8)}, "must take all randomness"),
    ]
    for change, words in changes:
        Broken.change = staticmethod(change)
        with pytest.raises(ContractError, match=words):
            check_component(Broken, **options)


def test_progress_is_shown(
    swapped: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fsframework.utils.progress.QUIET_SECONDS", 0.0)
    monkeypatch.setattr(fsf_data.swapped, "BATCH", 4)
    swapped().prepare(any_swapper())
    assert "swapping faces: 4/13 faces" in capsys.readouterr().err
