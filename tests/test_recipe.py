"""Recipes: reading, overrides, all errors at once, assembling, and what is generated from the models."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fsframework.core.errors import UserError
from fsframework.core.part import Part, part
from fsframework.core.registry import registry
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.recipe.build import build_swapper
from fsframework.recipe.check import check, check_file
from fsframework.recipe.reference import MARKER, rows, schema, tables, write_tables
from fsframework.recipe.schema import Evaluation, Networks, Optimizer, Pairs, Recipe, Schedule, Stage, find, shipped
from fsframework.utils.yaml import load_yaml as load_yaml

ROOT = Path(__file__).parents[1]

TEXT = """\
name: toy
size: 64
data: {use: toy-wrapper, share: 0.5, data: {use: toy-data}}
networks:
  identity: {use: toy-identity}
  attributes: {use: toy-attributes}
  generator: {use: toy-generator}
  refiner: {use: toy-refiner}
stages:
  - name: first
    train: [attributes, generator]
    losses:
      - {use: toy-loss}
      - use: toy-loss
        weight: 5
    optimizer: {lr: 4e-4}
    steps: 500
    batch_size: 16
  - name: second
    train: [refiner]
    data: {use: toy-data}
    losses: [{use: toy-loss}]
    optimizer: {lr: 1.0e-3, betas: [0.5, 0.9]}
    steps: 10
    batch_size: 4
evaluation:
  pairs: 20
  benchmarks:
    - {use: toy-benchmark, judge: {use: toy-identity, dim: 3}}
"""


@pytest.fixture(autouse=True)
def toy_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "toy_plugin"))
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "toy.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return file


def errors(file: Path, *sets: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        Recipe.load(str(file), sets)
    return str(caught.value).splitlines()


def test_values_and_defaults(file: Path) -> None:
    recipe = Recipe.load(str(file))
    first, second = recipe.stages
    assert recipe.seed == 0 and recipe.size == 64
    assert recipe.detector.name == "mtcnn"
    assert recipe.data.options.data.name == "toy-data" and recipe.data.options.share == 0.5
    assert first.optimizer.lr == 4e-4 and first.optimizer.betas == (0.0, 0.999)
    assert second.optimizer.betas == (0.5, 0.9) and second.optimizer.critic_lr is None
    assert first.pairs == Pairs(same=0.2, same_person=0.0, mirror=False)
    assert first.schedule == Schedule(kind="constant", warmup=0)
    assert [loss.options.weight for loss in first.losses] == [1.0, 5.0]
    assert recipe.evaluation is not None and recipe.evaluation.pairs == 20
    assert recipe.evaluation.benchmarks[0].options.judge.options.dim == 3


def test_dump_is_read_back(file: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(str(file))
    again = tmp_path / "again.yaml"
    again.write_text(recipe.dump_yaml(), encoding="utf-8")
    assert Recipe.load(str(again)).dump() == recipe.dump()
    assert json.loads(json.dumps(recipe.dump())) == recipe.dump()
    assert recipe.dump()["stages"][0]["losses"][1] == {
        "use": "toy-loss",
        "weight": 5.0,
        "start": 0,
        "margin": 0.5,
        "broken": False,
    }


def test_digest_depends_on_what_is_said_and_not_how(file: Path, tmp_path: Path) -> None:
    digest = Recipe.load(str(file)).digest()
    other = tmp_path / "other.yaml"
    other.write_text("# a comment\nseed: 0\n" + TEXT.replace("4e-4", "0.0004"), encoding="utf-8")
    assert Recipe.load(str(other)).digest() == digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert Recipe.load(str(file), ["seed=1"]).digest() != digest


def test_errors_come_all_at_once_with_their_lines(tmp_path: Path, check_message: Callable[..., None]) -> None:
    file = tmp_path / "toy.yaml"
    text = TEXT.replace("size: 64", "size: 65").replace("weight: 5", "wieght: 5").replace("steps: 500", "steps: 0")
    text = text.replace("steps: 10", "step: 10").replace("refiner: {use: toy", "refiner: {use: toi")
    text = text.replace("lr: 4e-4", "lr: fast").replace("pairs: 20", "pairs: [20]").replace("dim: 3", "dim: 0")
    file.write_text(text.replace("name: toy\n", "name: Toy_1\n"), encoding="utf-8")
    places = [
        "line 1: name",
        "line 2: size",
        "line 8: networks.refiner",
        "line 15: stages.0.losses.1.wieght",
        "line 16: stages.0.optimizer.lr",
        "line 17: stages.0.steps",
        "line 19: stages.1.steps",
        "line 24: stages.1.step",
        "line 27: evaluation.pairs",
        "line 27: evaluation.pairs",
        "line 29: evaluation.benchmarks.0.judge.dim",
    ]
    lines = errors(file)
    for line, place in zip(lines, places, strict=True):
        assert line.startswith(f"{file}: {place}: ")
    check_message("\n".join(lines))


@pytest.mark.parametrize(
    ("sets", "place"),
    [
        (["stages.0.steps=true"], "stages.0.steps"),
        (["stages.0.batch_size=16.0"], "stages.0.batch_size"),
        (["stages.0.train=[]"], "stages.0.train"),
        (["stages.0.train=[painter]"], "stages.0.train.0"),
        (["stages.0.train=[generator, generator]"], "stages.0.train"),
        (["stages.0.clip=1", "stages.0.optimizer_in_backward=true"], "stages.0: optimizer_in_backward"),
        (["stages.0.losses=[]"], "stages.0.losses"),
        (["stages.0.losses.0=3"], "stages.0.losses.0"),
        (["stages.0.optimizer=3"], "stages.0.optimizer"),
        (["stages.0.optimizer.lr=0"], "stages.0.optimizer.lr"),
        (["stages.0.optimizer.betas=[0, 1]"], "stages.0.optimizer.betas.1"),
        (["stages.0.ema=1"], "stages.0.ema"),
        (["stages.0.precision=fp16"], "stages.0.precision"),
        (["stages.0.pairs.same=0.6", "stages.0.pairs.same_person=0.6"], "stages.0.pairs"),
        (["stages.1.name=first"], "stages.1.name"),
        (["networks.refiner=null"], "stages.1.train"),
        (["networks.idenity={use: toy-identity}"], "networks.idenity"),
        (["data.data.data=1"], "data.data.data"),
        (["stages=3"], "stages"),
        (["zzz=3"], "zzz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_values(file: Path, sets: list[str], place: str, check_message: Callable[..., None]) -> None:
    lines = errors(file, *sets)
    where = [f"{file}: line ", *(f"--set {each}: " for each in sets)]
    assert all(line.startswith(tuple(where)) for line in lines)
    assert any(f": {place}: " in line for line in lines)
    check_message("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "stages.0.steps",
        "=3",
        "stages..steps=3",
        "stages.2.steps=3",
        "stages.-1.steps=3",
        "stages.first.steps=3",
        "stages.0.losses.2={use: toy-loss}",
        "size.x=3",
        "seed=[1",
        "seed=!!int 3",
    ],
)
def test_overrides_that_cannot_be_followed(file: Path, text: str, check_message: Callable[..., None]) -> None:
    (line,) = errors(file, text)
    assert line.startswith(f"--set {text}: ")
    check_message(line)


def test_errors_name_the_override(file: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error("--set stages.0.losses.1.weight=-1: stages.0.losses.1.weight: "):
        Recipe.load(str(file), ["stages.0.losses.1.weight=-1"])
    assert errors(file, "networks.generator.use=x")[0].startswith(
        "--set networks.generator.use=x: networks.generator: "
    )
    assert errors(file, "stages.0.pairs={same: 2}")[0].startswith("--set stages.0.pairs={same: 2}: stages.0.pairs.same")
    with expect_error("--set stags.0.steps=2: stags: "):
        Recipe.load(str(file), ["stags.0.steps=2"])


def test_overrides(file: Path) -> None:
    sets = ["stages.0.batch_size=8", "stages.1.optimizer.lr=1e-4", "stages.0.pairs.same=0.5", "detector.min_face=30"]
    recipe = Recipe.load(str(file), [*sets, "evaluation.pairs=orl", "networks.identity={use: toy-identity, dim: 9}"])
    assert recipe.stages[0].batch_size == 8
    assert recipe.stages[1].optimizer.lr == 1e-4
    assert recipe.stages[0].pairs.same == 0.5
    assert recipe.detector.options.min_face == 30
    assert recipe.evaluation is not None and recipe.evaluation.pairs == "orl"
    assert recipe.networks.identity.options.dim == 9
    assert Recipe.load(str(file), ["seed=1", "seed=2"]).seed == 2
    assert Recipe.load(str(file), ["evaluation=null"]).evaluation is None


def test_setting_use_drops_the_former_options(file: Path) -> None:
    recipe = Recipe.load(str(file), ["data.share=0.9", "data.use=toy-data", "data.count=7"])
    assert recipe.data.dump() == {"use": "toy-data", "count": 7}
    same = Recipe.load(str(file), ["data.use=toy-wrapper"])
    assert same.data.options.share == 0.5


def test_path_wins_over_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"toy": tmp_path / "shipped.yaml"}
    monkeypatch.setattr("fsframework.recipe.schema.shipped", lambda: names)
    (tmp_path / "toy").mkdir()
    assert find("toy") == tmp_path / "shipped.yaml"  # a folder is no recipe
    assert find("toy.yaml") == Path("toy.yaml")
    (tmp_path / "toy").rmdir()
    file.rename(tmp_path / "toy")
    assert find("toy") == Path("toy")
    with expect_error("nothing"):
        Recipe.load("nothing")


@pytest.mark.parametrize("text", ["", "- a", "text", "null"], ids=["empty", "list", "text", "null"])
def test_a_recipe_is_a_mapping(tmp_path: Path, text: str, expect_error: Callable[..., Any]) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text(text, encoding="utf-8")
    with expect_error("toy.yaml: line 1: "):
        Recipe.load(str(file))


def test_recipes_do_not_change(file: Path) -> None:
    recipe = Recipe.load(str(file))
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_files_that_a_recipe_names(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = Recipe.load(str(file))
    assert recipe.relative("w.safetensors") == tmp_path / "w.safetensors"
    (tmp_path / "elsewhere" / "w.safetensors").touch()
    assert recipe.relative("w.safetensors") == Path("w.safetensors")
    assert recipe.relative("/w.safetensors") == Path("/w.safetensors")


def test_recipe_in_python() -> None:
    stage = {"name": "only", "train": ["generator"], "losses": [part("losses", "toy-loss", weight=2)], "steps": 1}
    networks = {
        "identity": part("identity-encoders", "toy-identity"),
        "attributes": part("attribute-encoders", "toy-attributes"),
        "generator": part("generators", "toy-generator"),
    }
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "size": 32,
            "data": part("datasets", "toy-data"),
            "networks": networks,
            "stages": [{**stage, "batch_size": 2, "optimizer": {"lr": 0.1}}],
        }
    )
    assert isinstance(recipe.stages[0].losses[0], Part)
    assert recipe.stages[0].losses[0].options.weight == 2


def test_build_swapper_hands_sizes_on(file: Path) -> None:
    recipe = Recipe.load(str(file), ["networks.identity.dim=9", "networks.attributes={use: toy-attributes, width: 5}"])
    with torch.device("meta"):
        swapper = build_swapper(recipe)
    assert isinstance(swapper, Swapper)
    shapes = {name: tuple(value.shape) for name, value in swapper.generator.state_dict().items()}
    assert shapes["colour.weight"] == (3, 9)
    assert shapes["layer.weight"] == (3, 5, 1, 1)
    assert swapper.refiner is not None and swapper.refiner.size == 64


def test_built_swapper_runs(file: Path) -> None:
    swapper = build_swapper(Recipe.load(str(file), ["size=32"]))
    faces = FaceBatch.of(torch.zeros(2, 3, 32, 32))
    assert swapper.coarse(SwapBatch.of(faces, faces), z_id=torch.zeros(2, 6)).image.shape == (2, 3, 32, 32)


def test_check_sums_up(file: Path, check_message: Callable[..., None]) -> None:
    summary = check(Recipe.load(str(file)))
    assert "toy: 64 px" in summary
    assert re.search(r"generator +toy-generator +0\.00 M parameters", summary)
    (line,) = [line for line in summary.splitlines() if "stage second: " in line]
    check_message(line)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("networks.attributes.returned=7", "networks.attributes"),
        ("networks.generator.colours=5", "networks.generator"),
        ("networks.refiner.crop=1", "networks.refiner"),
        ("size=1024", "networks.generator"),
        ("stages.0.losses.1.broken=true", "stages.0.losses.1"),
    ],
)
def test_check_names_the_part_that_does_not_fit(
    file: Path, text: str, place: str, check_message: Callable[..., None]
) -> None:
    with pytest.raises(UserError) as caught:
        check_file(str(file), [text])
    message = str(caught.value)
    assert message.startswith(f"{file}: {place}: ") and "\n" not in message
    check_message(re.sub(r"toy_parts\.py:\d+", "toy_parts.py:LINE", message))


def test_check_of_a_mask_as_fourth_channel(file: Path) -> None:
    check_file(str(file), ["networks.generator.colours=4"])


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert name in check(recipe)


def test_every_key_is_described() -> None:
    for model in (Recipe, Networks, Stage, Pairs, Optimizer, Schedule, Evaluation):
        for row in rows(model):
            assert row.meaning.endswith("."), (model, row)


def test_every_option_is_described() -> None:
    for kind in registry().components.values():
        for registered in kind.values():
            for row in rows(registered.cls.Options):
                assert row.meaning, (registered.cls, row)


def test_rows() -> None:
    found = {row.key: row for row in rows(Stage)}
    assert found["steps"] == ("steps", "integer ≥ 1", "", "Optimizer steps.")
    assert found["losses"].type == "list, each: a loss"
    assert found["ema"].type == "number ≥ 0, < 1 or null" and found["ema"].default == "null"
    assert found["precision"].type == "auto or fp32 or bf16"
    assert {row.key: row for row in rows(Recipe)}["detector"].default == "{use: mtcnn}"
    assert {row.key: row for row in rows(Optimizer)}["betas"].default == "[0.0, 0.999]"


def test_readme_is_up_to_date() -> None:
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    _, marker, generated = text.partition(MARKER)
    assert marker and generated == f"\n{tables()}", MARKER


def test_readme_shows_a_recipe_that_is_right(tmp_path: Path) -> None:
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        Recipe.load(str(file))


def test_write_tables(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("introduction\n" + MARKER + "old", encoding="utf-8")
    write_tables(file)
    assert file.read_text(encoding="utf-8") == f"introduction\n{MARKER}\n{tables()}"


def test_schema_accepts_and_refuses(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    described = schema()
    validator = jsonschema.Draft202012Validator(described)
    validator.check_schema(described)
    data = load_yaml(file)[0]
    validator.validate(data)
    validator.validate(Recipe.load(str(file)).dump())
    for place, value in [("size", 65), ("data", {"use": "toy-data", "cuont": 3}), ("data", {"use": "toi"}), ("x", 1)]:
        assert not validator.is_valid({**data, place: value}), place
    nested = {"use": "toy-wrapper", "data": {"use": "toy-wrapper", "data": {"use": "toy-data"}}}
    assert validator.is_valid({**data, "data": nested})
    nested["data"] = {"use": "toy-wrapper", "data": {"use": "nothing"}}
    assert not validator.is_valid({**data, "data": nested})


@pytest.mark.parametrize("name", shipped())
def test_schema_accepts_shipped_recipes(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(schema()).validate(load_yaml(shipped()[name])[0])


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("networks.generator={use: aad-generator, most: 8}", "networks.generator.most"),
        ("networks.attributes={use: aei-attributes, full: true}", "networks.attributes.full"),
        ("stages.0.record=true", "stages.0.record"),
        ("stages.0.embeddings=once", "stages.0.embeddings"),
        ("stages.0.losses=[{use: reconstruction, of: draft}]", "stages.0.losses.0.of"),
        ("stages.0.losses=[{use: mask, of: refiner}]", "stages.0.losses.0.of"),
        ("data={use: hardest}", "data"),
    ],
    ids=["max-channels", "full-resolution", "cuda-graph", "embeddings", "target", "network", "hard-examples"],
)
def test_earlier_names_are_reported_with_the_present_one(
    file: Path, override: str, place: str, expect_error: Callable[..., Any]
) -> None:
    with expect_error(f"--set {override}: {place}: "):
        Recipe.load(str(file), [override])
