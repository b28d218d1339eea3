"""Rules that hold for all source files, read from their syntax: who imports whom, what is packed, no unpickling."""

import ast
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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

# Imports go down only. A module belongs to the layer of its name, or of what stands before the first `_` or `.`; within
# a layer only modules of one family, such as `training` and `training_pairs` or those of a package, may import each
# other.
LAYERS = [
    {"errors"},
    {"files", "types", "blending", "signals", "progress", "statistics", "safe_yaml", "grids", "threads"},
    {"shares", "engines"},
    {"faces", "video"},
    {"tracking"},
    {"native", "memory", "optimizers", "precision", "distributed", "cuda_graph", "certificates", "register"},
    {"winograd", "patches", "products", "instance_norm", "doubling"},
    {"convolution"},
    {"components"},
    {"hookspecs"},
    {"plugins", "people"},
    {
        "backbones",
        "landmarks",
        "weights",
        "wrapping",
        "images",
        "shards",
        "alignment",
        "environment",
        "watermark",
        "label",
    },
    {"pairs", "provenance", "pasting"},
    {"recipe"},
    {"runs", "testing", "protocols"},
    {"onnx"},
    {"models", "pytest", "scaffold", "reference"},
    {"training", "status"},
    {"evaluation", "conversion", "verification", "extraction"},
    {"report"},
    {"comparison"},
    {"web"},
    {"study", "serve"},
    {"cli"},
    {"__main__"},
]
PUBLIC = (ROOT / "tests" / "public_api.txt").read_text(encoding="utf-8").splitlines()
OPEN_TO_PLUGINS = {line.split(".")[1] for line in PUBLIC}  # what plugins may import


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports(file: Path) -> set[str]:
    """Everything that a file imports, at the top or inside functions, as dotted names: `fsframework.types`."""
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
            is_root = "." not in node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if is_root else {node.module}
    return found


def of_framework(file: Path) -> set[str]:
    return {name.removeprefix("fsframework.") for name in imports(file) if name.startswith("fsframework.")}


def module(file: Path) -> str:
    """The name of a file of the framework, as `of_framework` says it: `types`, `study.store`."""
    return ".".join(file.relative_to(ROOT / "fsframework").with_suffix("").parts)


def family(module: str) -> str:
    """The longest name in LAYERS that it begins with: of `instance_norm_triton`, instance_norm."""
    known: set[str] = set().union(*LAYERS)
    found = [name for name in known if module == name or module.startswith((f"{name}_", f"{name}."))]
    return max(found, key=len, default=module)


def layer(module: str) -> int:
    found = [number for number, names in enumerate(LAYERS) if family(module) in names]
    assert found, f"fsframework.{module} stands in no layer; add it to LAYERS"
    return found[0]


@pytest.mark.parametrize("file", FRAMEWORK, ids=module)
def test_imports_go_down(file: Path) -> None:
    if file.stem == "__init__":
        assert not of_framework(file)
        return
    for name in of_framework(file) - {"hookimpl"}:
        down = layer(name) < layer(module(file))
        assert down or family(name) == family(module(file)), f"{module(file)} imports {name}, which is not below it"


def test_no_circles() -> None:
    below = {module(file): of_framework(file) for file in FRAMEWORK}
    while leaves := [name for name, used in below.items() if not used & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, "these modules import each other in a circle"


@pytest.mark.parametrize("file", FRAMEWORK, ids=module)
def test_framework_imports_no_plugin(file: Path) -> None:
    assert not {name for name in imports(file) if name.startswith("fsf_")}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_plugins_import_the_open_part_of_the_framework_and_no_other_plugin(folder: Path) -> None:
    for file in folder.rglob("*.py"):
        assert of_framework(file) <= OPEN_TO_PLUGINS, file
        assert "fsframework" not in imports(file), file
        others = {name.split(".")[0] for name in imports(file) if name.startswith("fsf_")} - {folder.name}
        assert not others, file


COMMANDS = [file for file in FRAMEWORK if family(module(file)) == "cli"]


@pytest.mark.parametrize("file", COMMANDS, ids=module)
def test_command_line_imports_little_at_the_top(file: Path) -> None:
    top = imported(file, tree(file).body)
    ours = {name for name in top if name.partition(".")[0] not in sys.stdlib_module_names} - {"fsframework.errors"}
    commands = {f"fsframework.{other.stem}" for other in COMMANDS} - {"fsframework.cli", "fsframework.cli_options"}
    of_cli = {"cli": commands, "cli_options": set[str]()}
    assert ours == {"click"} | of_cli.get(file.stem, {"fsframework.cli_options"})


def test_entry_points_and_packages_equal_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {folder.name: folder.relative_to(ROOT).as_posix() for folder in PLUGINS}
    assert settings["project"]["entry-points"]["fsframework"] == {name: name for name in folders}
    inner = {f"fsframework.{name}": f"fsframework/{name}" for name in ("serve", "study", "web")}
    packages = {"fsframework": "fsframework", **inner, **folders, **DATA, **TEMPLATE}
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
    templates = [file.relative_to(ROOT / "fsframework") for file in (ROOT / "fsframework").glob("report_templates/*")]
    assert templates and all(
        any(file.match(pattern) for pattern in settings["package-data"]["fsframework"]) for file in templates
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
