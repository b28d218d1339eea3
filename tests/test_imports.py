"""Rules that hold for all source files, read from their syntax: imports, what is packed, no unpickling."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import fsframework
import fsframework.testing

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "fsframework" / "report"
FRAMEWORK = sorted((ROOT / "fsframework").rglob("*.py"))
PLUGINS = sorted(
    folder
    for parent in ("plugins", "benchmarks")
    for folder in (ROOT / parent).glob("fsf_*")
    if (folder / "__init__.py").is_file() and folder.name != "fsf_template"
)
TEMPLATE = {  # what `fsf plugins new` copies: packed, and no plugin
    "fsf_template": "plugins/fsf_template",
    "fsf_template.tests": "plugins/fsf_template/tests",
}
DATA = {
    "fsf_recipes": "recipes",
    "fsf_pairs": "benchmarks/pairs",
    "fsf_protocols": "benchmarks/protocols",
}  # packages that hold no code


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(file: Path) -> set[str]:
    """Everything that a file imports, at the top or inside functions, as dotted names: `fsframework.core.types`."""
    return imported(file, ast.walk(tree(file)))


def imported(file: Path, nodes: Iterable[ast.AST]) -> set[str]:
    """What those of some nodes of a file import that are imports."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            is_package = "." not in node.module or (ROOT / node.module.replace(".", "/")).is_dir()
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if is_package else {node.module}
    return found


def of_framework(file: Path) -> set[str]:
    return {name.removeprefix("fsframework.") for name in imports(file) if name.startswith("fsframework.")}


def module(file: Path) -> str:
    """The name of a file of the framework, as `of_framework` says it: `types`, `study.store`."""
    return ".".join(file.relative_to(ROOT / "fsframework").with_suffix("").parts)


def lazily(file: str | None) -> set[str]:
    """The modules whose names a package offers at first use."""
    assert file is not None
    nodes = ast.walk(tree(Path(file)))
    return {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and node.names[0].asname}


# What built-in plugins import besides the public interface: kernels and other internals that may change at any time.
INTERNALS = {
    "data.collate",
    "data.train_pairs",
    "faces.align",
    "media.image_io",
    "media.video_io",
    "models.onnx_runtime",
    "models.store",
    "ops.allocator",
    "ops.conv",
    "ops.csrc.build",
    "ops.instance_norm",
    "ops.precision",
    "ops.triton.instance_norm",
    "ops.triton.launch",
    "ops.triton.upsample",
    "training.cuda_graph",
    "training.optim",
    "utils.environment",
    "utils.files",
    "utils.progress",
    "utils.weights",
}
PUBLIC = {"fsframework": fsframework.__all__, "fsframework.testing": fsframework.testing.__all__}
PUBLIC_MODULES = {
    module.removeprefix("fsframework.")
    for package in (fsframework, fsframework.testing)
    for module in lazily(package.__file__)
}


@pytest.mark.system
def test_import_contracts_are_kept() -> None:
    """Check the contracts of pyproject.toml: levels, no circles, plugins apart."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_plugins_import_an_open_part_of_the_framework_and_no_other_plugin(folder: Path) -> None:
    for file in folder.rglob("*.py"):
        assert of_framework(file) <= {"hookimpl"} | PUBLIC_MODULES | INTERNALS, file
        assert "fsframework" not in imports(file), file
        others = {name.split(".")[0] for name in imports(file) if name.startswith("fsf_")} - {folder.name}
        assert not others, file


SHOWN = [*(ROOT / "plugins" / "fsf_template").rglob("*.py"), *(ROOT / "plugins" / "examples").rglob("*.py")]


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.relative_to(ROOT / "plugins").as_posix())
def test_template_and_examples_import_the_public_interface_only(file: Path) -> None:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "fsframework":
            assert {alias.name for alias in node.names} <= set(PUBLIC[str(node.module)])


COMMANDS = [file for file in FRAMEWORK if module(file).startswith("cli.")]


@pytest.mark.parametrize("file", COMMANDS, ids=module)
def test_command_line_imports_little_at_the_top(file: Path) -> None:
    top = imported(file, tree(file).body)
    ours = {name for name in top if name.partition(".")[0] not in sys.stdlib_module_names} - {"fsframework.core.errors"}
    if file.stem == "__init__":
        assert not ours
        return
    others = {"main", "options", "__init__"}
    commands = {f"fsframework.{module(other)}" for other in COMMANDS if other.stem not in others}
    of_cli = {"main": commands, "options": set[str]()}
    assert ours == {"click"} | of_cli.get(file.stem, {"fsframework.cli.options"})


def test_entry_points_and_packages_equal_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {folder.name: folder.relative_to(ROOT).as_posix() for folder in PLUGINS}
    assert settings["project"]["entry-points"]["fsframework"] == {name: name for name in folders}
    inside = sorted(file.parent.relative_to(ROOT) for file in FRAMEWORK if file.stem == "__init__")
    inner = {".".join(folder.parts): folder.as_posix() for folder in inside}
    packages = {**inner, **folders, **DATA, **TEMPLATE}
    assert settings["tool"]["setuptools"]["package-dir"] == packages
    assert sorted(settings["tool"]["setuptools"]["packages"]) == sorted(packages)
    nested = [file.parent for folder in packages.values() for file in (ROOT / folder).glob("*/__init__.py")]
    left_out = [folder for folder in nested if folder.relative_to(ROOT).as_posix() not in packages.values()]
    assert not left_out, "these packages inside packages would not be packed"


def test_data_files_get_into_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["*"]
    for folder in settings["package-dir"].values():
        for file in (ROOT / folder).iterdir():
            if file.is_file() and file.suffix not in (".py", ".md"):
                assert any(fnmatch(file.name, pattern) for pattern in patterns), f"{file} would be left out"
    templates = [file.relative_to(REPORT) for file in REPORT.glob("templates/*")]
    assert templates and all(
        any(file.match(pattern) for pattern in settings["package-data"]["fsframework.report"]) for file in templates
    )


def unsafe(call: ast.Call) -> str | None:
    """What is wrong with a call that may run code found in a file."""
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in (
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "dill.load",
        "yaml.load",
        "yaml.unsafe_load",
        "eval",
        "exec",
    ):
        return name
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    return next((key for key in ("weights_only", "allow_pickle") if keywords.get(key, "") == UNSAFE[key]), None)


UNSAFE = {"weights_only": "False", "allow_pickle": "True"}


# Reads pickles that another package carries, after their SHA-256 was compared with one in the source.
VERIFIED = {("fsf_detectors/mtcnn.py", "joblib.load")}


@pytest.mark.parametrize("folder", [ROOT / "fsframework", *PLUGINS], ids=lambda folder: folder.name)
def test_nothing_is_unpickled(folder: Path) -> None:
    for file in folder.rglob("*.py"):
        name = file.relative_to(folder.parent).as_posix()
        calls = [node for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]
        found = {(name, what) for call in calls if (what := unsafe(call))}
        assert not found - VERIFIED


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_unsafe_calls_are_seen(text: str) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and unsafe(call)
