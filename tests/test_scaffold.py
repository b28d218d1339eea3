"""`fsf plugins new`: what it writes is right for every kind, and nothing is overwritten."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fsframework.cli import main
from fsframework.core.errors import UserError
from fsframework.core.registry import KINDS, SINGULAR, registry
from fsframework.recipe.check import check
from fsframework.recipe.schema import Recipe
from fsframework.testing import scaffold


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a new plugin with all kinds, as if installed."""
    folder = tmp_path / "fsf-every-kind"
    scaffold.write("fsf-every-kind", list(KINDS), folder)
    about = folder / "fsf_every_kind-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fsf-every-kind\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("[fsframework]\nfsf_every_kind = fsf_every_kind\n")
    monkeypatch.syspath_prepend(str(folder))
    registry.cache_clear()
    yield folder
    registry.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsf_every_kind"]:
        del sys.modules[name]


def test_a_plugin_of_all_kinds_is_found_and_its_recipe_fits(installed: Path) -> None:
    assert registry().problems == []
    for kind, named in registry().components.items():
        own = [name for name, registered in named.items() if registered.plugin == "fsf_every_kind"]
        assert own == [f"every-kind-{SINGULAR[kind].replace(' ', '-')}"]
    recipe = Recipe.load(str(installed / "recipe.yaml"))
    assert "every-kind-refiner" in check(recipe)
    text = (installed / "recipe.yaml").read_text()
    assert text.count("every-kind-") == len(KINDS) and "fsf-every-kind>=0.1" in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_for_one_kind_has_built_in_components_for_the_rest(
    kind: str, tmp_path: Path, check_message: Callable[..., None]
) -> None:
    scaffold.write("fsf-one", [kind], tmp_path / "one")
    text = (tmp_path / "one" / "recipe.yaml").read_text()
    assert text.count("use: one-") == 1
    bare = tmp_path / "bare.yaml"
    bare.write_text(text)
    with pytest.raises(UserError) as error:
        Recipe.load(str(bare))
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and all(line.startswith(str(bare)) for line in lines)
    check_message(str(error.value))


@pytest.mark.parametrize("name", ["fsf-demo", "zeta-two", "a1"])
@pytest.mark.parametrize("kinds", [list(KINDS), ["losses"], ["datasets", "refiners"]], ids=["all", "one", "two"])
def test_what_is_written_is_linted(name: str, kinds: list[str], tmp_path: Path) -> None:
    folder = tmp_path / name
    files = scaffold.write(name, kinds, folder)
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == files
    for arguments in (["check"], ["format", "--check"]):
        done = subprocess.run(["ruff", *arguments, "."], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    left = [file for file in files if "emplate" in file + (folder / file).read_text()]
    assert left == []


@pytest.mark.parametrize("name", ["Demo", "fsf_demo", "../demo", "class", "torch", "fsf-losses", "json"])
def test_names_that_cannot_be(name: str, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"{name}: "):
        scaffold.write(name, ["losses"], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    check_message: Callable[..., None],
    expect_error: Callable[..., Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(main.fsf, ["plugins", "new", "fsf-demo", "--kind", "loss,generators", "--kind", "loss"])
    assert first.exit_code == 0
    line = first.output.splitlines()[-1]
    assert line.startswith("next: ")
    check_message(line)
    Path("fsf-demo/README.md").write_text("mine")
    with expect_error("fsf-demo: "):
        CliRunner().invoke(main.fsf, ["plugins", "new", "fsf-demo", "--kind", "loss"], catch_exceptions=False)
    assert Path("fsf-demo/README.md").read_text() == "mine"
    wrong = CliRunner().invoke(main.fsf, ["plugins", "new", "fsf-demo", "--kind", "los"])
    assert wrong.exit_code == 2
    check_message(wrong.output.splitlines()[-1])
