"""Recipes: reading, overrides, all errors at once, assembling, and what is generated from the models."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fsframework.components import Swapper
from fsframework.errors import UserError
from fsframework.plugins import Part, part, registry
from fsframework.recipe import (
    Evaluation,
    Networks,
    Optimizer,
    Pairs,
    Recipe,
    Schedule,
    Stage,
    build_swapper,
    find,
    shipped,
)
from fsframework.recipe_check import check, check_file
from fsframework.reference import MARKER, rows, schema, tables, write_tables
from fsframework.safe_yaml import load as load_yaml
from fsframework.types import Batch, Faces

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


def test_errors_come_all_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "toy.yaml"
    text = TEXT.replace("size: 64", "size: 65").replace("weight: 5", "wieght: 5").replace("steps: 500", "steps: 0")
    text = text.replace("steps: 10", "step: 10").replace("refiner: {use: toy", "refiner: {use: toi")
    text = text.replace("lr: 4e-4", "lr: fast").replace("pairs: 20", "pairs: [20]").replace("dim: 3", "dim: 0")
    file.write_text(text.replace("name: toy\n", "name: Toy_1\n"), encoding="utf-8")
    assert errors(file) == [
        f"{file}: line 1: name: should match pattern '^[a-z0-9]+(-[a-z0-9]+)*$', not Toy_1",
        f"{file}: line 2: size: should be 32, 64, 128, 256, 512 or 1024, not 65",
        f"{file}: line 8: networks.refiner: no refiner is called toi-refiner; did you mean toy-refiner?",
        f"{file}: line 15: stages.0.losses.1.wieght: there is no such key; did you mean weight?",
        f"{file}: line 16: stages.0.optimizer.lr: should be a valid number, not fast",
        f"{file}: line 17: stages.0.steps: should be greater than or equal to 1, not 0",
        f"{file}: line 19: stages.1.steps: is missing; write it",
        f"{file}: line 24: stages.1.step: there is no such key; did you mean steps?",
        f"{file}: line 27: evaluation.pairs: should be a valid string",
        f"{file}: line 27: evaluation.pairs: should be a valid integer",
        f"{file}: line 29: evaluation.benchmarks.0.judge.dim: should be greater than or equal to 1, not 0",
    ]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["stages.0.steps=true"], "stages.0.steps: should be a valid integer, not true"),
        (["stages.0.batch_size=16.0"], "stages.0.batch_size: should be a valid integer, not 16.0"),
        (["stages.0.train=[]"], "stages.0.train: List should have at least 1 item"),
        (
            ["stages.0.train=[painter]"],
            "stages.0.train.0: should be 'identity', 'attributes', 'generator' or 'refiner'",
        ),
        (["stages.0.train=[generator, generator]"], "stages.0.train: names a network twice"),
        (["stages.0.clip=1", "stages.0.free_gradients=true"], "stages.0: free_gradients: clip needs all gradients"),
        (["stages.0.losses=[]"], "stages.0.losses: List should have at least 1 item"),
        (["stages.0.losses.0=3"], "stages.0.losses.0: name a loss like this"),
        (["stages.0.optimizer=3"], "stages.0.optimizer: should be a mapping"),
        (["stages.0.optimizer.lr=0"], "stages.0.optimizer.lr: should be greater than 0"),
        (["stages.0.optimizer.betas=[0, 1]"], "stages.0.optimizer.betas.1: should be less than 1"),
        (["stages.0.ema=1"], "stages.0.ema: should be less than 1"),
        (["stages.0.precision=fp16"], "stages.0.precision: should be 'auto', 'fp32' or 'bf16'"),
        (["stages.0.pairs.same=0.6", "stages.0.pairs.same_person=0.6"], "0.6 + 0.6 is more than 1"),
        (["stages.1.name=first"], "stages.1.name: 2 stages are called first"),
        (["networks.refiner=null"], "stages.1.train: trains the refiner, and networks.refiner is missing"),
        (["networks.idenity={use: toy-identity}"], "networks.idenity: there is no such key; did you mean identity?"),
        (["data.data.data=1"], "data.data.data: there is no such key; the keys are use, count"),
        (["stages=3"], "stages: should be a list"),
        (["zzz=3"], "zzz: there is no such key; the keys are name, seed, requires, size"),
    ],
)
def test_wrong_values(file: Path, sets: list[str], message: str) -> None:
    assert any(message in line for line in errors(file, *sets)), errors(file, *sets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages.0.steps", "write KEY=VALUE, such as stages.0.batch_size=8"),
        ("=3", "write KEY=VALUE"),
        ("stages..steps=3", "write KEY=VALUE"),
        ("stages.2.steps=3", "stages has 2 entries, counted from 0; there is no 2"),
        ("stages.-1.steps=3", "stages has 2 entries"),
        ("stages.first.steps=3", "stages has 2 entries"),
        ("stages.0.losses.2={use: toy-loss}", "stages.0.losses has 2 entries"),
        ("size.x=3", "size is a plain value and has no x"),
        ("seed=[1", "this is no YAML"),
        ("seed=!!int 3", "tags are not read"),
    ],
)
def test_overrides_that_cannot_be_followed(file: Path, text: str, message: str) -> None:
    (line,) = errors(file, text)
    assert line.startswith(f"--set {text}: ") and message in line


def test_errors_name_the_override(file: Path) -> None:
    assert errors(file, "stages.0.losses.1.weight=-1") == [
        "--set stages.0.losses.1.weight=-1: stages.0.losses.1.weight: should be greater than or equal to 0, not -1"
    ]
    assert errors(file, "networks.generator.use=x")[0].startswith(
        "--set networks.generator.use=x: networks.generator: "
    )
    assert errors(file, "stages.0.pairs={same: 2}")[0].startswith("--set stages.0.pairs={same: 2}: stages.0.pairs.same")
    assert errors(file, "stags.0.steps=2")[0].endswith("stags: there is no such key; did you mean stages?")


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


def test_path_wins_over_name(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"toy": tmp_path / "shipped.yaml"}
    monkeypatch.setattr("fsframework.recipe.shipped", lambda: names)
    (tmp_path / "toy").mkdir()
    assert find("toy") == tmp_path / "shipped.yaml"  # a folder is no recipe
    assert find("toy.yaml") == Path("toy.yaml")
    (tmp_path / "toy").rmdir()
    file.rename(tmp_path / "toy")
    assert find("toy") == Path("toy")
    with pytest.raises(UserError, match="nothing: no such recipe; name a YAML file, or one of: toy"):
        Recipe.load("nothing")


@pytest.mark.parametrize("text", ["", "- a", "text", "null"])
def test_a_recipe_is_a_mapping(tmp_path: Path, text: str) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text(text, encoding="utf-8")
    assert errors(file) == [f"{file}: line 1: a recipe is a mapping; begin with name: NAME"]


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
    faces = Faces.of(torch.zeros(2, 3, 32, 32))
    assert swapper.draft(Batch.of(faces, faces), z_id=torch.zeros(2, 6)).image.shape == (2, 3, 32, 32)


def test_check_sums_up(file: Path) -> None:
    summary = check(Recipe.load(str(file)))
    assert "toy: 64 px" in summary
    assert re.search(r"generator +toy-generator +0\.00 M parameters", summary)
    assert "stage second: trains refiner; 10 steps of 4 pairs; toy-loss" in summary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("networks.attributes.returned=7", "networks.attributes: .*declares maps of .4. channels and returns .7."),
        ("networks.generator.colours=5", r"networks.generator: .*returns \(2, 5, 64, 64\).*must return \(2, 3 or 4"),
        ("networks.refiner.crop=1", r"networks.refiner: .*returns \(2, 3, 63, 64\)"),
        ("size=1024", "networks.generator: .*paints up to 512 px, not 1024"),
        (
            "stages.0.losses.1.broken=true",
            r"stages.0.losses.1: toy-loss .* does not work here: RuntimeError: it was asked to fail",
        ),
    ],
)
def test_check_names_the_part_that_does_not_fit(file: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_file(str(file), [text])
    assert str(caught.value).startswith(f"{file}: ")


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
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
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
