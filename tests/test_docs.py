"""What the documents say is true: their commands parse, their recipes load, their code runs."""

import re
import shlex
import types
from pathlib import Path

import click
import pytest
import torch

from fsframework import hookspecs
from fsframework.cli import fsf
from fsframework.components import Swapper
from fsframework.recipe import Recipe
from fsframework.types import Batch, Faces, SwapResult

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "MODEL_CARD.md", *sorted(ROOT.glob("*/README.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language ("" for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def commands() -> list[list[str]]:
    """Every `fsf` command in a code block, or in the head of a recipe."""
    text = "\n".join(block for document in DOCUMENTS for block in blocks(document, ""))
    heads = "".join(recipe.read_text(encoding="utf-8") for recipe in (ROOT / "recipes").glob("*.yaml"))
    text += "\n" + re.sub(r"^# *", "", heads, flags=re.MULTILINE)
    found = re.findall(r"(?:^|&& )(fsf [^\n&]+)", text, re.MULTILINE)
    # What follows two spaces or a bracket is said about the command.
    return [shlex.split(re.split(r"\s{2,}|\s\(", line)[0].replace("...", "")) for line in found]


def test_ci_installs_and_tests_with_the_commands_of_the_readme() -> None:
    first, second = blocks(ROOT / "README.md", "")[:2]
    install, run = first.strip().split(" && ")
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert install.replace("pip install", "pip install --quiet") in lines
    assert second.strip() in lines
    assert run == "fsf run recipes/faceshifter.yaml"


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_have_the_form_that_is_shown(words: list[str]) -> None:
    command: click.Command = fsf
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, rest[0]
        command, rest = found, rest[1:]
    context = click.Context(command)
    command.make_parser(context).parse_args(rest)  # raises for options that do not exist


def test_the_recipe_of_the_readme_loads(tmp_path: Path) -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "readme.yaml").write_text(text)
    shown, shipped = Recipe.load(str(tmp_path / "readme.yaml")), Recipe.load("faceshifter")
    assert shown.networks == shipped.networks
    assert [stage.name for stage in shown.stages] == ["aei-net"]


def test_every_hook_has_its_line() -> None:
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert len(hooks) == 10
    assert [hook for hook in hooks if f"`{hook}()`" not in text] == []


def test_the_first_plugin_of_the_tutorial_works() -> None:
    (text,) = blocks(ROOT / "plugins" / "README.md", "python")
    module = types.ModuleType("fsf_brightness")
    exec(compile(text, "fsf_brightness.py", "exec"), vars(module))
    (cls,) = module.register_losses()
    loss = cls(cls.Options(gain=2, weight=3))
    faces = Faces.of(torch.zeros(2, 3, 8, 8))
    swap = SwapResult(torch.full((2, 3, 8, 8), 0.25), torch.zeros(2, 3, 8, 8), torch.zeros(2, 4))
    value = loss(Batch.of(faces, faces), swap, Swapper.__new__(Swapper))
    assert value.item() == pytest.approx((2 * 0.25) ** 2)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (document.parent / link).exists()] == []
