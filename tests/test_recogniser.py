"""A recogniser of one's own: its loss, its training by a recipe, its verification, and its use as a judge."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsf_benchmarks.verification import accuracy, all_cosines, best_threshold, pairs_of, rank1, threshold_at
from fsf_losses.margin import Margin
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.evaluation.standalone import measure
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import write_image
from fsframework.models import store
from fsframework.models.run import Run
from fsframework.recipe.check import check_file
from fsframework.recipe.schema import Recipe
from fsframework.report.run_report import write_report
from fsframework.training.trainer import StageTrainer, train

RECIPE = """
name: known
size: 32
data: {use: face-folder, root: FACES, layout: aligned, test_share: 0.0, cache: CACHE}
networks:
  identity: {use: timm-recogniser, backbone: lcnet_035}
stages:
  - {name: known, train: [identity], pairs: {same: 1}, losses: [{use: margin, people: 8}], batch_size: 8,
     optimizer: {lr: 3.0e-3, betas: [0.9, 0.999]}, ema: 0.5, steps: 30, checkpoint_every: 5, log_every: 1}
"""


class Means(IdentityEncoder):
    """The mean colour, as a direction."""

    name = "means"
    dim = 3

    def __init__(self) -> None:
        super().__init__(ComponentOptions())

    def forward(self, faces: FaceBatch) -> Tensor:
        return F.normalize(faces.image.mean(dim=(2, 3)), dim=1)


def faces(colours: list[list[float]], people: list[int]) -> FaceBatch:
    image = torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 8, 8).contiguous()
    made = FaceBatch.of(image)
    return replace(made, person=torch.tensor(people), index=torch.arange(len(people)))


def directed(directions: list[list[float]], **options: float) -> Margin:
    """A margin loss that shows every picture as it is, with known directions."""
    still = {"shift": 0.0, "zoom": 0.0, "light": 0.0, "dim": 3, "people": len(directions)}
    loss = Margin(Margin.Options.model_validate(still | options))
    loss.views = lambda images: images  # type: ignore[method-assign]
    loss.directions.data = torch.tensor(directions, dtype=torch.float32)
    return loss


def look(loss: Margin, target: FaceBatch) -> Tensor:
    swapped = SwapResult(target.image, target.image, torch.zeros(len(target.image), 0))
    term: Tensor = loss(SwapBatch.of(target, target), swapped, Swapper(Means()))
    return term.detach()


def test_margin_is_the_formula() -> None:
    loss = directed([[2, 0, 0], [0, 1, 0], [0, 0, 5]], margin=0.2, scale=4.0)
    # Right cosine 1 less the margin, wrong cosines 0, times the scale; the directions' lengths do not count.
    expected = -np.log(np.exp(4 * 0.8) / (np.exp(4 * 0.8) + 2))
    seen = faces([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [0, 1, -1])
    assert float(look(loss, seen)) == pytest.approx(expected, rel=1e-5)
    assert float(look(loss, faces([[1, 0, 0]], [-1]))) == 0  # nobody is known


def test_directions_are_learned_from_what_was_seen() -> None:
    loss = directed([[1, 1, 0], [1, 1, 0]], margin=0.0, scale=4.0)
    batches = [faces([[1, 0, 0]], [0]), faces([[0, 1, 0]], [1])]
    terms = [float(look(loss, seen)) for seen in batches]
    for seen, term in zip(batches, terms, strict=True):  # as a step of two accumulated batches does
        critic = loss.critic(SwapBatch.of(seen, seen), SwapResult(seen.image, seen.image, torch.zeros(1, 0)))
        assert float(critic.detach()) == pytest.approx(term)
        critic.backward()
    assert loss.directions.grad is not None
    toward = loss.directions.data - loss.directions.grad
    assert toward[0, 0] > toward[0, 1] and toward[1, 1] > toward[1, 0]  # each turns to its own person


@pytest.mark.parametrize("name", ["cosface", "arcface"])
def test_a_margin_with_a_name_is_that_kind(name: str) -> None:
    embedding, person = F.normalize(torch.randn(4, 128), dim=1), torch.tensor([0, 1, 2, -1])
    losses = [part("losses", name, people=3).build(), part("losses", "margin", people=3, kind=name).build()]
    losses[1].load_state_dict(losses[0].state_dict())
    assert torch.equal(*(loss.term(embedding, person) for loss in losses))
    with pytest.raises(ValidationError, match="kind"):
        part("losses", name, kind="arcface" if name == "cosface" else "cosface")


def test_recipes_name_losses_and_generators_by_their_own_names(file: Path) -> None:
    assert "arcface" in check_file(str(file), ["stages.0.losses=[{use: arcface, people: 8}]"])
    for name in ("add", "cat", "compressed", "adain", "spade"):
        assert f"{name}-generator" in check_file(
            "ablation", [f"networks.generator={{use: {name}-generator, width: 0.125}}", "data={use: orl}"]
        )


def test_margin_refuses_what_does_not_fit(expect_error: Callable[..., Any]) -> None:
    loss = directed([[1, 0, 0], [0, 1, 0]])
    with expect_error("margin"):
        look(loss, faces([[1, 0, 0]], [2]))
    with expect_error("margin"):
        look(directed([[1, 0], [0, 1]], dim=2), faces([[1, 0, 0]], [0]))


def test_views_differ_and_stay_in_range() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 3, 32, 32) * 2 - 1
    loss = Margin(Margin.Options())
    one, other = loss.views(images), loss.views(images)
    assert one.shape == images.shape and one.abs().max() <= 1
    assert ((one - other).abs().mean(dim=(1, 2, 3)) > 0.05).all()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and five people of one colour each, with four noisy pictures each."""
    folder = tmp_path_factory.mktemp("recogniser")
    rng = np.random.default_rng(0)
    for person, colour in enumerate([[220, 40, 40], [40, 220, 40], [40, 40, 220], [210, 210, 40], [40, 210, 210]]):
        (folder / "faces" / str(person)).mkdir(parents=True)
        for number in range(4):
            image = np.clip(rng.normal(colour, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
            write_image(folder / "faces" / str(person) / f"{number}.png", image, synthetic=False)
    text = RECIPE.replace("FACES", str(folder / "faces")).replace("CACHE", str(folder / "cache"))
    (folder / "known.yaml").write_text(text)
    return folder / "known.yaml"


@pytest.fixture(scope="module")
def run(file: Path) -> Run:
    run = Run.open(Recipe.load(str(file)), file.parent / "run", device="cpu")
    train(run)
    return run


def test_a_recipe_trains_a_recogniser(run: Run, file: Path) -> None:
    values = [entry["losses"]["margin"] for entry in run.read_log()]
    assert len(values) == 30 and np.mean(values[-3:]) < np.mean(values[:3])
    assert "timm-recogniser" in check_file(str(file))
    assert "A face recogniser" in write_report(run).read_text()


def test_it_goes_on_where_it_stopped(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = Run.open(run.recipe, file.parent / "again", device="cpu")
    done = StageTrainer.step

    def stop_after_seven(self: StageTrainer, step: int, *values: Any) -> Any:
        if step == 7:
            raise KeyboardInterrupt
        return done(self, step, *values)

    monkeypatch.setattr(StageTrainer, "step", stop_after_seven)
    with pytest.raises(KeyboardInterrupt):
        train(again)
    assert [state.name for state in again.states(run.recipe.stages[0])] == ["known.step-00000005.safetensors"]
    monkeypatch.setattr(StageTrainer, "step", done)
    train(Run.open(run.recipe, file.parent / "again", resume=True, device="cpu"))
    one, other = (each.load_swapper().state_dict() for each in (run, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_judges_as_a_file(
    run: Run, file: Path, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    out = file.parent / "judge.safetensors"
    store.export(run.path, out)
    judge = part("identity-encoders", "timm-recogniser", backbone="lcnet_035", weights=out).build()
    judge.load()
    judge.train()
    crops = FaceBatch.of(torch.rand(3, 3, 32, 32) * 2 - 1)
    judge.eval()
    torch.testing.assert_close(judge(crops), run.load_swapper().identity(crops), rtol=1e-2, atol=1e-2)
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    named = f"judge={{use: timm-recogniser, backbone: lcnet_035, weights: {out}}}"
    settings = run.recipe.data.dump()
    settings["cache"] = str(file.parent / "cache")
    found = measure("verification", [named, f"data={json.dumps(settings)}", "size=32", "split=all"], "cpu")
    (row,) = found["rows"]
    assert row["faces"] == 20 and row["pairs"] == 2 * 5 * 6
    assert row["accuracy_percent"] > 60 and row["cosine_same"] > row["cosine_different"]
    assert row["pairs_different"] == 10 * 4 * 4 and row["far"] == pytest.approx(10 / 160, rel=1e-2)
    assert -1 < row["threshold"] <= 1 and 0 <= row["tar_percent"] <= 100
    with expect_error("judge.safetensors", hide={str(file.parent): "TMP"}):
        FaceSwapper(out, "cpu")
    with pytest.raises(UserError, match=r"size mismatch for network\.classifier\.weight") as caught:
        part("identity-encoders", "timm-recogniser", weights=out).build().load()
    message, _, _ = str(caught.value).partition(": size mismatch for ")  # torch's own words follow
    assert message.startswith(f"{out}: ") and "\n" not in str(caught.value)
    check_message(message, {str(file.parent): "TMP"})


def test_unknown_backbones_are_refused(expect_error: Callable[..., Any], check_message: Callable[..., None]) -> None:
    with expect_error("backbone"):
        part("identity-encoders", "timm-recogniser", backbone="resnot").build()
    with pytest.raises(UserError, match="chanels") as caught:
        part("identity-encoders", "timm-recogniser", backbone="resnet10t", arguments={"chanels": [8]}).build()
    message, _, _ = str(caught.value).partition(": ResNet.__init__()")  # Python's own words follow
    assert message.startswith("arguments: ") and "\n" not in str(caught.value)
    check_message(message)


@pytest.mark.parametrize(
    ("sets", "place"),
    [
        (["networks.identity={use: dlib-resnet}"], "known.yaml: line 8: stages.0.train"),
        (["stages.0.train=[generator]"], "stages.0.train"),
        (["networks.generator={use: aad-generator}"], "known.yaml: line 5: networks"),
        (["networks.refiner={use: hear-net}"], "networks.refiner"),
        (["evaluation={pairs: 3, benchmarks: [{use: reconstruction}]}"], "evaluation"),
    ],
    ids=["untrainable", "no generator", "no attributes", "refiner alone", "evaluation"],
)
def test_recipes_that_cannot_be(file: Path, sets: list[str], place: str, expect_error: Callable[..., Any]) -> None:
    place = place if place.startswith(file.name) else f"--set {sets[0]}: {place}"
    with expect_error(f"{place}: ", hide={str(file.parent): "TMP"}):
        Recipe.load(str(file), sets)


def test_swapping_recipes_do_not_train_a_recogniser_beside(
    small_recipe: Callable[..., Recipe], tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    small_recipe(tmp_path / "x.yaml")
    sets = ["networks.identity={use: timm-recogniser}", "stages.0.train=[identity, generator]"]
    with expect_error(f"--set {sets[1]}: stages.0.train"):
        Recipe.load(str(tmp_path / "x.yaml"), sets)


def test_verification_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    people = np.array([0, 0, 1, 1, 1, 2, -1, -1])
    vectors = rng.normal(size=(8, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = []
    for i in range(8):
        if people[i] >= 0 and (people == people[i]).sum() > 1:
            cosines = [float(vectors[i] @ vectors[j]) if j != i else -2.0 for j in range(8)]
            nearest = cosines.index(max(cosines))
            hits.append(people[nearest] == people[i])
    assert rank1(vectors, people) == pytest.approx(np.mean(hits))
    same, different = pairs_of(people, 100, rng)
    assert len(same) == len(different) == 4
    assert all(people[a] == people[b] >= 0 for a, b in same) and all(people[a] != people[b] for a, b in different)


def test_accuracy() -> None:
    apart = accuracy(np.linspace(0.6, 1, 40), np.linspace(-0.2, 0.5, 40))
    assert apart == 1
    rng = np.random.default_rng(0)
    assert 0.4 < accuracy(rng.normal(size=400), rng.normal(size=400)) < 0.6
    assert 0.5 < best_threshold(np.array([0.6, 0.9]), np.array([0.1, 0.5])) <= 0.6


def test_threshold_of_a_false_accept_rate_against_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsf_benchmarks.verification.ROWS", 7)  # several blocks
    rng = np.random.default_rng(0)
    people = np.concatenate([np.repeat(np.arange(20), 3), [-1, -1]])
    vectors = rng.normal(size=(62, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [(i, j) for j in range(60) for i in range(j)]
    expected = {
        same: sorted(float(vectors[i] @ vectors[j]) for i, j in pairs if (people[i] == people[j]) is same)
        for same in (np.True_, np.False_)
    }
    alike, unlike = all_cosines(vectors, people)
    np.testing.assert_allclose(np.sort(alike), expected[np.True_], atol=1e-6)
    np.testing.assert_allclose(np.sort(unlike), expected[np.False_], atol=1e-6)
    threshold, far = threshold_at(unlike, 0.02)
    assert far == 0.02 and (unlike >= threshold).sum() == round(0.02 * len(unlike)) == 34
    threshold, far = threshold_at(unlike, 1e-3)  # two pairs would be too few
    assert far == pytest.approx(10 / len(unlike), rel=1e-2) and (unlike >= threshold).sum() == 10


def test_verification_needs_people(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    for person in range(3):
        (tmp_path / "faces" / str(person)).mkdir(parents=True)
        write_image(tmp_path / f"faces/{person}/0.png", np.full((32, 32, 3), 60 * person, np.uint8), synthetic=False)
    data = f"{{use: face-folder, root: {tmp_path / 'faces'}, layout: aligned, cache: {tmp_path / 'cache'}}}"
    with expect_error("verification: data"):
        measure("verification", ["judge={use: dlib-resnet}", f"data={data}", "size=32", "split=all"], "cpu")
