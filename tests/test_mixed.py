"""Mixtures of data sets: shares of training targets, people apart, exact resume."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fsf_data.mixed import Mixed
from fsf_faceshifter.hard_examples import HardExamples
from pydantic import ValidationError

from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import EmptySplitError
from fsframework.core.part import part
from fsframework.core.registry import components
from fsframework.core.types import Sample
from fsframework.data.eval_pairs import draw_pairs
from fsframework.data.samples import FewFaces
from fsframework.data.train_pairs import NumberedFaces, TrainingPairs, target_order
from fsframework.media.image_io import write_image
from fsframework.models.run import Run
from fsframework.recipe.schema import Pairs, Recipe
from fsframework.testing.contract import ContractError, check_component
from fsframework.training.trainer import train
from fsframework.utils.weights import load_state

SIZE = 32


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Aligned crops: `many` has 20 people with two pictures each, `few` 4 with one each, `loose` 6 of nobody."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    names = {
        "many": [f"{person:04d}/{number}.png" for person in range(20) for number in range(2)],
        "few": [f"{person:04d}/0.png" for person in range(4)],
        "loose": [f"{number}.png" for number in range(6)],
    }
    for part_name, pictures in names.items():
        for name in pictures:
            path = folder / part_name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8), synthetic=False)
    return {part_name: folder / part_name for part_name in names}


def folder_of(root: Path, **options: Any) -> dict[str, Any]:
    return {
        "use": "face-folder",
        "root": str(root),
        "layout": "aligned",
        "test_share": 0.0,
        "cache": str(root.parent / "cache"),
        **options,
    }


@pytest.fixture
def mixed(roots: dict[str, Path]) -> Callable[..., Dataset]:
    """Open a mixture, by default of all three with the shares 1, 2 and 1."""

    def opened(shares: dict[str, float] | None = None, split: str = "train", **options: dict[str, Any]) -> Dataset:
        shares = shares or {"many": 1, "few": 2, "loose": 1}
        parts = {
            name: {"data": folder_of(roots[name], **options.get(name, {})), "share": share}
            for name, share in shares.items()
        }
        data: Dataset = part("datasets", "mixed", parts=parts).build(SIZE, part("detectors", "mtcnn"), split)
        data.load()
        return data

    return opened


def targets(data: Dataset, numbers: range) -> np.ndarray:
    pairs = TrainingPairs(data, Pairs(), [0, 0])
    return np.array([pairs[number].target_index for number in numbers])


def part_of(data: Dataset, indices: np.ndarray) -> np.ndarray:
    names = np.array([name.partition("/")[0] for name in data.names()])
    return names[indices]


def test_every_epoch_has_the_shares(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    assert len(data) == 50
    for epoch in range(3):
        drawn = targets(data, range(50 * epoch, 50 * epoch + 50))
        names, counts = np.unique(part_of(data, drawn), return_counts=True)
        expected = {"few": 25, "loose": 12.5, "many": 12.5}
        assert all(abs(count - expected[name]) <= 1 for name, count in zip(names, counts, strict=True))
        times = np.bincount(drawn, minlength=50)
        in_part = part_of(data, np.arange(50))
        assert set(times[in_part == "few"]) <= {6, 7}  # 25 targets of 4 faces
        assert set(times[in_part == "loose"]) <= {2, 3}
        assert set(times[in_part == "many"]) == {0, 1}


def test_faces_of_a_large_part_take_turns(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    times = np.bincount(targets(data, range(50 * 40)), minlength=50)[part_of(data, np.arange(50)) == "many"]
    assert times.sum() == pytest.approx(40 * 12.5, abs=40)
    assert times.min() >= 4 and times.max() <= 24  # 12.5 on average; no face is always left out


def test_targets_come_in_no_order(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    first = part_of(data, targets(data, range(25)))
    assert 6 <= (first == "few").sum() <= 19  # parts do not follow one another


def test_a_pair_depends_on_its_number_alone(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    pairs = TrainingPairs(data, Pairs(same=0.2, same_person=0.3), [3, 1])
    straight = {number: pairs[number] for number in range(120)}
    resumed = TrainingPairs(mixed(), Pairs(same=0.2, same_person=0.3), [3, 1])
    for number in (119, 70, 71, 3, 99):
        again = resumed[number]
        assert again[1::2] == straight[number][1::2]
        np.testing.assert_array_equal(again.target.image, straight[number].target.image)


def test_people_of_the_parts_are_apart(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    people, persons = data.people(), data.persons()
    assert people[0] == "many/0000" and people[40] == "few/0000" and people[44] is None
    assert persons.tolist() == Dataset.persons(data).tolist()
    assert persons[40] != persons[0] and (persons[44:] == -1).all() and persons.max() == 23
    assert data[41].name == "few/0001/0.png" and data[41].person == "few/0001"
    assert len(set(data.names())) == 50


def test_pairs_of_one_person_and_of_two_are_right(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    persons = data.persons()
    same = TrainingPairs(data, Pairs(same=0, same_person=1), [0, 0])
    found = set()
    for number in range(200):
        _, source, _, target, _ = same[number]
        if persons[target] < 0 or (persons == persons[target]).sum() == 1:  # nobody else shows this person
            assert source != target and (persons[source] != persons[target] or persons[target] < 0)
        else:
            assert source != target and persons[source] == persons[target]
            found.add(target)
    assert len(found) > 20
    different = TrainingPairs(data, Pairs(same=0, same_person=0), [0, 0])
    for number in range(200):
        _, source, _, target, _ = different[number]
        assert source != target and (persons[source] != persons[target] or persons[target] < 0)


def test_one_part_equals_the_dataset_itself(mixed: Callable[..., Dataset], roots: dict[str, Path]) -> None:
    options = {key: value for key, value in folder_of(roots["many"]).items() if key != "use"}
    alone: Dataset = part("datasets", "face-folder", **options).build(SIZE, part("detectors", "mtcnn"), "train")
    alone.load()
    data = mixed({"many": 0.25})
    assert data.weights() is None and data.names() == [f"many/{name}" for name in alone.names()]
    assert data.persons().tolist() == alone.persons().tolist()
    one, other = (TrainingPairs(dataset, Pairs(same=0.2), [0, 0]) for dataset in (data, alone))
    for number in range(90):
        assert one[number][1::2] == other[number][1::2]
        np.testing.assert_array_equal(one[number].source.image, other[number].source.image)


def test_mixtures_nest(roots: dict[str, Path]) -> None:
    inner = {
        "use": "mixed",
        "parts": {"few": {"data": folder_of(roots["few"]), "share": 3}, "loose": {"data": folder_of(roots["loose"])}},
    }
    data = part("datasets", "mixed", parts={"all": {"data": inner}, "many": {"data": folder_of(roots["many"])}}).build(
        SIZE, None, "train"
    )
    data.load()
    weights = data.weights()
    assert weights[:4].sum() == pytest.approx(0.375) and weights[4:10].sum() == pytest.approx(0.125)
    assert weights[10:].sum() == pytest.approx(0.5)
    assert data.names()[0] == "all/few/0000/0.png"


def test_the_test_split_is_the_union(
    mixed: Callable[..., Dataset], roots: dict[str, Path], expect_error: Callable[..., Any]
) -> None:
    held_out = {"many": {"test_share": 0.4}, "loose": {"test_share": 0.4}}
    parts = {split: mixed(split=split, **held_out) for split in ("train", "test", "all")}
    names = {split: set(data.names()) for split, data in parts.items()}
    assert names["train"] | names["test"] == names["all"] and not names["train"] & names["test"]
    assert {name.partition("/")[0] for name in names["test"]} == {"many", "loose"}  # `few` has no test people
    test = parts["test"]
    persons = test.persons()
    for source, target in draw_pairs(test, 30, 0):
        assert source != target and (persons[source] != persons[target] or persons[source] < 0)
    with expect_error(kind=EmptySplitError, hide={str(roots["many"]): "MANY"}):
        mixed(split="test")
    with expect_error(kind=EmptySplitError, hide={str(roots["few"]): "FEW"}):
        mixed(few={"test_share": 1.0})


def test_keeps_the_contract(roots: dict[str, Path]) -> None:
    parts = {
        "orl": {"data": {"use": "orl"}, "share": 3},
        "many": {"data": folder_of(roots["many"], test_share=0.3)},
    }
    check_component(Mixed, parts=parts)


class Heavy(FewFaces):
    """Frequencies that the contract does not allow."""

    name = "heavy"

    def __init__(self, options: ComponentOptions, size: int, detector: Any, split: str) -> None:
        Dataset.__init__(self, options, size, detector, split)

    def load(self) -> None:
        samples = FewFaces(self.size).samples
        self.samples = {"train": samples[:4], "test": samples[4:], "all": samples}[self.split]

    def weights(self) -> np.ndarray:
        return np.ones(len(self) + 1)


def test_wrong_frequencies_are_found(check_message: Callable[..., None]) -> None:
    with pytest.raises(ContractError) as caught:
        check_component(Heavy)
    check_message(re.sub(r"py:\d+", "py:LINE", str(caught.value).splitlines()[0]))
    heavy = Heavy(ComponentOptions(), 64, None, "all")
    heavy.load()
    with pytest.raises(ValueError, match=r"must return 6 finite numbers"):
        TrainingPairs(heavy, Pairs(), [0, 0])


class Timed(FewFaces):
    """A data set with neighbours, ground truths and state, to see that a mixture forwards them."""

    name = "timed"

    def __init__(self, shift: int) -> None:
        super().__init__(SIZE)
        self.shift = shift

    def pairs(self) -> list[tuple[int, int]]:
        return [(0, 3)]

    def prepare(self, swapper: Any) -> dict[str, np.ndarray]:
        return {"shift": np.array([self.shift])}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.restored = state["shift"].item()

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        return self.samples[index ^ 1]


def test_everything_else_is_asked_of_the_part(roots: dict[str, Path]) -> None:
    options = Mixed.Options(parts={name: {"data": folder_of(roots[name])} for name in ("few", "many")})
    data = Mixed(options, SIZE, None, "all")
    data.parts = {"few": Timed(1), "many": Timed(2)}
    data.load()
    assert data.pairs() == [(0, 3), (6, 9)]
    assert [data.next_frame(index) for index in (0, 1, 6, 11)] == [1, 0, 7, 10]
    truth = data.ground_truth_swap(7, 8)
    assert truth is not None and truth.name == "many/p1/0" and data.ground_truth_swap(0, 8) is None
    assert data.expected("pose_deg", 6, 7) is not None and data.expected("pose_deg", 0, 7) is None
    assert data.target(6, np.random.default_rng(0)).name == "many/p0/1"
    state = data.prepare(None)  # type: ignore[arg-type]
    assert {key: value.item() for key, value in state.items()} == {"few.shift": 1, "many.shift": 2}
    data.restore(state)
    assert [part.restored for part in data.parts.values()] == [1, 2]  # type: ignore[attr-defined]
    for wrong in (-1, 12):
        with pytest.raises(IndexError):
            data[wrong]


def test_wrappers_forward_frequencies(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    wrapper = part("datasets", "hard-examples", data=part("datasets", "orl"), share=0.5).build(SIZE, None, "all")
    assert isinstance(wrapper, HardExamples)
    wrapper.inner = data
    weights = data.weights()
    assert weights is not None
    np.testing.assert_array_equal(wrapper.weights(), weights)
    wrapper.chosen = np.array([3, 41])
    np.testing.assert_array_equal(wrapper.weights(), weights[[3, 41]])
    assert len(TrainingPairs(wrapper, Pairs(), [0, 0])._order) == 0


def test_targets_follow_any_frequencies() -> None:
    rng = np.random.default_rng(0)
    weights = np.array([0, 1, 2.5, 4.5])
    counts = np.bincount(np.concatenate([target_order(4, weights, rng) for _ in range(500)]), minlength=4)
    assert counts[0] == 0
    np.testing.assert_allclose(counts / 500, 4 * weights / 8, atol=0.06)
    equal = target_order(1000, np.full(1000, 0.1), rng)
    assert sorted(equal) == list(range(1000))


def test_a_large_mixture_is_drawn_at_once() -> None:
    weights = np.concatenate([np.full(1_900_000, 0.5 / 1_900_000), np.full(100_000, 0.5 / 100_000)])
    order = target_order(2_000_000, weights, np.random.default_rng(0))
    assert len(order) == 2_000_000 and abs((order >= 1_900_000).sum() - 1_000_000) <= 1


def test_embeddings_are_in_the_order_of_the_faces(mixed: Callable[..., Dataset]) -> None:
    data = mixed()
    numbered = NumberedFaces(data)
    batch = numbered.batch([numbered[number] for number in range(38, 48)])
    assert batch.index.tolist() == list(range(38, 48)) and batch.person.tolist() == data.persons()[38:48].tolist()


def recipe_of(roots: dict[str, Path], parts: dict[str, Any], folder: Path) -> Path:
    content = {
        "name": "tiny",
        "size": SIZE,
        "data": {"use": "mixed", "parts": parts},
        "networks": {
            "identity": {"use": "dlib-resnet"},
            "attributes": {"use": "aei-attributes", "width": 0.25},
            "generator": {"use": "aad-generator", "width": 0.125},
        },
        "stages": [
            {"name": "aei-net", "train": ["attributes", "generator"], "losses": [{"use": "reconstruction"}],
             "optimizer": {"lr": 1e-3}, "steps": 3, "batch_size": 4}
        ],
    }  # fmt: skip
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_trains_with_embeddings_once_or_in_each_step(roots: dict[str, Path], tmp_path: Path) -> None:
    parts = {name: {"data": folder_of(roots[name])} for name in ("few", "loose")}
    file = recipe_of(roots, parts, tmp_path)
    for once in ("true", "false"):
        recipe = Recipe.load(str(file), [f"stages.0.precompute_embeddings={once}"])
        run = Run.open(recipe, tmp_path / once, device="cpu")
        train(run)
        state = load_state(run.prepared_file(recipe.stages[0]))
        assert ("z_id" in state) == (once == "true") and len(state.get("z_id", range(10))) == 10


def test_the_recogniser_of_all_sets_trains(roots: dict[str, Path], tmp_path: Path) -> None:
    sets = ["size=32", "stages.0.steps=1", "stages.0.batch_size=4", "data.parts.celebrities.data.exclude=[]"]
    for name in ("lfw", "generated", "celebrities", "all-age"):
        for number in range(2):
            path = tmp_path / name / f"{number:04d}" / "0.png"
            path.parent.mkdir(parents=True)
            path.write_bytes((roots["many"] / f"{number:04d}" / "0.png").read_bytes())
        options = {"root": tmp_path / name, "layout": "aligned", "cache": tmp_path / "cache"}
        sets += [f"data.parts.{name}.data.{key}={value}" for key, value in options.items()]
    recipe = Recipe.load("recogniser-mixed", sets)
    assert isinstance(recipe.data.options, Mixed.Options)
    assert sum(part.share for part in recipe.data.options.parts.values()) == 10419 + 4503 + 993 + 7258
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    train(run)
    assert run.weights_file(recipe.stages[0]).is_file()


def test_mistakes_are_told_in_a_line(roots: dict[str, Path], tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    names = ", ".join(sorted(components("datasets")))

    def expect(parts: Any, *sets: str) -> None:
        file = recipe_of(roots, parts, tmp_path)
        with expect_error("tiny.yaml", hide={str(tmp_path): "TMP", str(roots["few"].parent): "ROOTS", names: "NAMES"}):
            Recipe.load(str(file), sets)

    few, many = ({"data": folder_of(roots[name])} for name in ("few", "many"))
    expect({})
    expect({"few": few | {"share": 0}})
    expect({"few": few | {"share": -1}})
    expect({"few": few | {"share": float("inf")}})
    expect([few])
    expect({"few": few, "again": {"data": folder_of(roots["few"])}})
    expect({"few": few, "again": {"data": folder_of(roots["few"].parent / "many" / ".." / "few", test_share=0.5)}})
    expect({"few": few, "again": {"data": {"use": "occluded", "data": folder_of(roots["few"])}}})
    expect({"few": few, "many": {"share": 1}})
    expect({"few": few, "many": many | {"shares": 1}})
    expect({"few": few, "Many People": many})
    expect({"few": few, "many": {"data": {"use": "nothing"}}})
    expect({"few": few, "many": {"data": folder_of(roots["many"], rot=1)}})


def test_shares_can_be_set(roots: dict[str, Path], tmp_path: Path) -> None:
    file = recipe_of(roots, {name: {"data": folder_of(roots[name])} for name in ("few", "many")}, tmp_path)
    recipe = Recipe.load(str(file), ["data.parts.many.share=3", f"data.parts.few.data.root={roots['loose']}"])
    assert isinstance(recipe.data.options, Mixed.Options)
    parts = recipe.data.options.parts
    assert parts["many"].share == 3
    assert parts["few"].data.dump()["root"] == str(roots["loose"])
    again = Recipe.parse(recipe.dump_yaml(), "again")
    assert again.digest() == recipe.digest()
    with pytest.raises(ValidationError):
        part("datasets", "mixed", parts={"few": {"data": folder_of(roots["few"]), "share": float("nan")}})
