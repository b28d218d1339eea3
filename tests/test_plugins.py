"""The plugin host, with plugins that are as if installed (`install`)."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fsframework.cli import plugins
from fsframework.cli import run as cli_training
from fsframework.core import hookspecs
from fsframework.core.components import Loss
from fsframework.core.errors import UserError
from fsframework.core.part import part, providers
from fsframework.core.registry import KINDS, component, components, registry, unknown
from fsframework.models import store
from fsframework.models.run import Run
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe
from fsframework.utils.weights import load_metadata

GOOD = """\
from fsframework import hookimpl
from fsframework.core.components import Loss

class Good(Loss):
    name = "NAME"

@hookimpl
def register_losses():
    return [Good]
"""

Install = Callable[..., str]


def test_plugin_is_found(install: Install) -> None:
    plugin = install(GOOD.replace("NAME", "good"))
    assert registry().components["losses"]["good"].plugin == plugin
    assert registry().distributions[plugin] == "try-0 1.0"
    assert issubclass(component("losses", "good"), Loss)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_missing", "ModuleNotFoundError: "),
        ("raise RuntimeError('first\\nsecond')", "RuntimeError: "),
        ("1 +", "SyntaxError: "),
        (GOOD.replace("register_losses", "register_models"), "register_models "),
        (GOOD.replace("register_losses", "register_models").replace("[Good]", "None"), "register_models "),
        (GOOD.replace("[Good]", "[Good, 1 / 0]"), "ZeroDivisionError: "),
        (GOOD.replace("register_losses()", "register_losses(context)"), "{'context'}"),
    ],
    ids=["import", "error", "syntax", "class", "nothing", "hook", "argument"],
)
def test_broken_plugin_is_named_and_the_rest_work(
    install: Install, source: str, reason: str, check_message: Callable[..., None]
) -> None:
    broken = install(source)
    good = install(GOOD.replace("NAME", "good"))
    (problem,) = [problem for problem in registry().problems if problem.startswith(f"{broken}: ")]
    assert reason in problem and "\n" not in problem
    check_message(problem, {broken: "BROKEN"})
    assert broken not in registry().distributions
    assert registry().components["losses"]["good"].plugin == good
    assert "hinge-gan" in components("losses")


def test_two_plugins_of_one_name_are_both_refused(install: Install, check_message: Callable[..., None]) -> None:
    install(GOOD.replace("NAME", "one"), plugin="fsf_same")
    install(GOOD.replace("NAME", "two"), plugin="fsf_same")
    (problem,) = registry().problems
    assert problem.startswith("fsf_same: ")
    check_message(problem)
    assert not {"one", "two"} & set(components("losses"))


def test_module_of_two_plugins_is_used_once(install: Install, check_message: Callable[..., None]) -> None:
    first = install(GOOD.replace("NAME", "good"), plugin="fsf_a", module="fsf_try_twice")
    second = install(GOOD.replace("NAME", "good"), plugin="fsf_b", module="fsf_try_twice")
    (problem,) = registry().problems
    assert problem.startswith(f"{second}: ")
    check_message(problem)
    assert registry().components["losses"]["good"].plugin == first


def test_second_component_of_a_name_is_refused(install: Install, check_message: Callable[..., None]) -> None:
    installed = {install(GOOD.replace("NAME", "good")), install(GOOD.replace("NAME", "good"))}
    (problem,) = registry().problems
    used = registry().components["losses"]["good"].plugin
    (left_out,) = installed - {used}
    assert problem.startswith(f"{left_out}: ") and used in problem
    check_message(problem, {left_out: "LEFT_OUT", used: "USED"})


def test_blocked_plugin_is_not_imported(install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    plugin = install(f"open({str(sentinel)!r}, 'w')\nraise RuntimeError")
    monkeypatch.setenv("FSF_BLOCK_PLUGINS", f"other, {plugin}")
    assert registry().problems == []
    assert not sentinel.exists()


def test_unknown_component(
    install: Install, expect_error: Callable[..., Any], check_message: Callable[..., None]
) -> None:
    broken = install("raise RuntimeError('broken')")
    hide = {broken: "BROKEN", ", ".join(sorted(components("losses"))): "LOSSES"}
    check_message(unknown("losses", "hinge-gn"), hide)
    check_message(unknown("losses", "zzz"), hide)
    with expect_error(hide=hide) as caught:
        component("losses", "zzz")
    assert f"{broken}.py:1: RuntimeError: broken" in str(caught.value)


SMALL = """\
name: small
requires: REQUIRES
size: 32
data: {use: orl, people: [1, 2]}
networks:
  identity: {use: dlib-resnet}
  attributes: {use: aei-attributes, width: 0.125}
  generator: {use: aad-generator, width: 0.125}
stages:
  - name: one
    train: [generator]
    losses: [{use: reconstruction}, {use: LOSS}]
    optimizer: {lr: 1.0e-4}
    steps: 1
    batch_size: 2
"""


def small(folder: Path, requires: str, loss: str) -> str:
    """A recipe's file."""
    file = folder / "small.yaml"
    file.write_text(SMALL.replace("REQUIRES", requires).replace("LOSS", loss))
    return str(file)


def test_recipe_says_who_provides_its_components(install: Install, tmp_path: Path) -> None:
    install(GOOD.replace("NAME", "good"))
    recipe = Recipe.load(small(tmp_path, "[try-0>=0.9, fsframework]", "good"))
    ours, theirs = providers(recipe).items()
    assert ours[0].startswith("fsframework ") and "detector mtcnn" in ours[1] and "generator aad-generator" in ours[1]
    assert theirs == ("try-0 1.0", ["loss good"])


@pytest.mark.parametrize(
    ("requires", "place"),
    [("[try-0>=2]", "requires.0"), ("[numpy, fsf-film]", "requires.1"), ("['>=2']", "requires.0")],
)
def test_recipe_is_refused_without_what_it_requires(
    install: Install, tmp_path: Path, requires: str, place: str, expect_error: Callable[..., Any]
) -> None:
    install(GOOD.replace("NAME", "good"))
    file = small(tmp_path, requires, "good")
    with expect_error(f"small.yaml: line 2: {place}: "):
        Recipe.load(file)


def test_missing_component_is_named_with_what_to_install(tmp_path: Path, check_message: Callable[..., None]) -> None:
    file = small(tmp_path, "[fsf-film>=0.2]", "film-grain")
    with pytest.raises(UserError) as error:
        Recipe.load(file)
    lines = str(error.value).splitlines()
    for line, place in zip(lines, ("line 2: requires.0", "line 12: stages.0.losses.1"), strict=True):
        assert line.startswith(f"{file}: {place}: ")
    check_message(str(error.value))


def test_run_names_distributions_before_it_starts(
    install: Install,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    expect_error: Callable[..., Any],
    check_message: Callable[..., None],
) -> None:
    plugin = install(GOOD.replace("NAME", "good"))
    # The loss has no forward: its training has begun.
    with expect_error(f"stages.0.losses.1: good ({plugin}.py:4) ", hide={plugin: "PLUGIN"}):
        cli_training.run.main([small(tmp_path, "[]", "good"), "--out", str(tmp_path / "run")], standalone_mode=False)
    line, _, _ = capsys.readouterr().out.partition("\n")
    assert "try-0 1.0" in line and "loss good" in line
    check_message(re.sub(r"fsframework \S+;", "fsframework VERSION;", line))


def test_model_requires_what_its_components_came_from(install: Install, tmp_path: Path) -> None:
    install(GOOD.replace("NAME", "good"))
    run = Run.open(Recipe.load(small(tmp_path, "[]", "good")), tmp_path / "run", device="cpu")
    parts = dict(build_swapper(run.recipe).trained_parts())
    run.finish(run.recipe.stages[0], {f"generator.{key}": v for key, v in parts["generator"].state_dict().items()})
    store.export(tmp_path / "run", tmp_path / "model.safetensors")
    kept = load_metadata(tmp_path / "model.safetensors")["recipe"]
    assert Recipe.parse(kept, "model").requires == ["try-0>=1.0"]


def test_part_checks_its_options(expect_error: Callable[..., Any]) -> None:
    assert part("losses", "hinge-gan", weight=2).dump()["weight"] == 2
    with pytest.raises(ValidationError, match="weight"):
        part("losses", "hinge-gan", weight=-1)
    with expect_error(hide={", ".join(sorted(components("losses"))): "LOSSES"}):
        part("losses", "zzz")


def test_every_kind_has_a_hook() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("register_")}
    assert hooks == {f"register_{kind.replace('-', '_')}" for kind in KINDS} | {"register_models"}


def test_built_in_plugins_have_no_problems() -> None:
    registry.cache_clear()
    assert registry().problems == []


@pytest.mark.system
def test_plugins_load_without_what_few_commands_need() -> None:
    slow = {"torch._dynamo", "torchvision", "timm", "scipy", "skimage", "joblib", "onnxruntime", "cryptography"}
    code = (
        "import sys; from fsframework.core.registry import registry; registry(); "
        f"print(sorted({slow} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_command_line_warns_of_a_broken_plugin(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    broken = install("raise RuntimeError('broken')")
    plugins.list_components.main(["loss"], standalone_mode=False)
    out, err = capsys.readouterr()
    line, _, _ = err.partition("\n")
    assert line.startswith(f"warning: {broken}: ") and f"{broken}.py:1: RuntimeError: broken" in line
    check_message(line, {broken: "BROKEN"})
    assert "hinge-gan" in out
