"""What the documents say is true: their commands parse, their recipes load, their code runs."""

import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from plugin_reference import signature

from fsframework.cli.main import fsf
from fsframework.core import hookspecs
from fsframework.core.registry import KINDS, registry
from fsframework.recipe.check import check_file
from fsframework.recipe.schema import Recipe
from fsframework.testing.contract import check_component

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "MODEL_CARD.md", *sorted(ROOT.glob("*/README.md"))]
DOCUMENTS += [*sorted(ROOT.glob("plugins/examples/*/README.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language ("" for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def commands() -> list[list[str]]:
    """Every `fsf` command in a code block, or in the head of a recipe."""
    kinds = ("", "bash")
    text = "\n".join(block for document in DOCUMENTS for kind in kinds for block in blocks(document, kind))
    heads = "".join(recipe.read_text(encoding="utf-8") for recipe in (ROOT / "recipes").glob("*.yaml"))
    text += "\n" + re.sub(r"^# *", "", heads, flags=re.MULTILINE)
    found = re.findall(r"(?:^|&& |[A-Z_]+=\S+ )(fsf [^\n&]+)", text, re.MULTILINE)
    # What follows two spaces or a bracket is said about the command.
    return [shlex.split(re.split(r"\s{2,}|\s\(", line)[0].replace("...", "")) for line in found]


def test_ci_installs_and_tests_with_the_commands_of_the_readme() -> None:
    first, second = blocks(ROOT / "README.md", "")[:2]
    assert first.strip() == "pip install -e . && fsf run recipes/faceshifter.yaml"
    install, tests = second.strip().split(" && ")
    script = (ROOT / ".ci" / "run").read_text()
    assert install.replace("pip install", "pip install --quiet").replace("test", "${EXTRA-test}") in script
    assert f'\nif ! {tests} "$@" ' in script


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


def test_every_hook_has_its_section() -> None:
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert len(hooks) == 10
    assert [hook for hook in hooks if f"\n### `{signature(hook)}`\n" not in text] == []
    assert signature("register_losses") == "register_losses() -> list[type[Loss]]"


@pytest.mark.system
def test_generated_parts_are_up_to_date() -> None:
    command = [sys.executable, "-m", "cogapp", "-I", "../docs", "--check", "README.md"]
    done = subprocess.run(command, cwd=ROOT / "plugins", capture_output=True, text=True, check=False)
    assert done.returncode == 0, "cog -I docs -r plugins/README.md"


def every_command(group: click.Group, before: str) -> list[str]:
    found = []
    for name, command in group.commands.items():
        whole = f"{before} {name}"
        found += every_command(command, whole) if isinstance(command, click.Group) else [whole]
    return found


def test_every_command_is_documented() -> None:
    found = every_command(fsf, "fsf")
    assert len(found) >= 12
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    assert [name for name in found if not any(name in text for text in texts)] == []


TUTORIAL, REFERENCE = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8").split("\n## The hooks\n")
EXAMPLES = re.findall(r"^### `register_(\w+)\(.*?^```python\n(.*?)^```$", REFERENCE, re.MULTILINE | re.DOTALL)


def test_every_hook_has_an_example() -> None:
    assert [kind.replace("_", "-") for kind, _ in EXAMPLES] == [*KINDS, "models"]


@pytest.mark.parametrize(("kind", "text"), EXAMPLES[:-1], ids=[kind for kind, _ in EXAMPLES[:-1]])
def test_example_of_a_hook_works(install: Callable[..., str], kind: str, text: str) -> None:
    plugin = install(text)
    assert registry().problems == []
    named = registry().components[kind.replace("_", "-")].values()
    (cls,) = [registered.cls for registered in named if registered.plugin == plugin]
    check_component(cls)


def test_example_of_a_model_works(install: Callable[..., str]) -> None:
    install(EXAMPLES[-1][1])
    assert registry().problems == []
    assert registry().models["mine"].file.name == "mine.safetensors"


def test_the_first_plugin_of_the_tutorial_works(install: Callable[..., str], tmp_path: Path) -> None:
    plugin, test = re.findall(r"^```python\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
    install(plugin, module="fsf_brightness")
    assert registry().problems == []
    module = types.ModuleType("test_brightness")
    exec(compile(test, "test_brightness.py", "exec"), vars(module))
    module.test_contract()
    module.test_a_brighter_swap_costs()
    (recipe,) = blocks(ROOT / "plugins" / "README.md", "yaml")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("fsf-brightness>=0.1", "try-0"))  # as `install` calls it
    assert "brightness" in check_file(str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (document.parent / link).exists()] == []
