"""The public interface, written down in public_api.txt, so that nothing of it changes unseen.

It is what `fsframework.__all__` and `fsframework.testing.__all__` name. After a change that is meant:
`python tests/test_api.py` writes the file anew; a removal or an incompatible change also needs a line in CHANGELOG.md.
"""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsframework as fsf
import fsframework.testing

FILE = Path(__file__).with_name("public_api.txt")
PACKAGES = (fsf, fsframework.testing)


def surface() -> str:
    """A line for each public name: its package, its name, and how it is called or what type it has."""
    lines = ["fsframework.hookimpl"]
    for package in PACKAGES:
        for name, module in imports(package.__file__):
            found = importlib.util.find_spec(module)
            assert found is not None and found.origin is not None
            tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
            defined = [line for line in names(tree.body) if re.match(rf"{name}\b", line)]
            assert defined, f"{module} does not define {name}"
            lines += [f"{package.__name__}.{line}" for line in defined]
    return "\n".join(lines) + "\n"


def imports(file: str | None) -> list[tuple[str, str]]:
    """The names that a package imports for type checkers, with their modules, in the order of names."""
    assert file is not None
    nodes = ast.walk(ast.parse(Path(file).read_text(encoding="utf-8")))
    found = [(node.module, node.names) for node in nodes if isinstance(node, ast.ImportFrom)]
    return sorted(
        (alias.name, module) for module, aliases in found if module for alias in aliases if alias.name == alias.asname
    )


def names(body: list[ast.stmt], within: str = "") -> Iterator[str]:
    """The public names of a module or a class, in their order."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and is_public(node.name):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            marks = "".join(f" @{ast.unparse(mark)}" for mark in node.decorator_list)
            yield f"{within}{node.name}({ast.unparse(node.args)}){returns}{marks}"
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            yield f"{within}{node.name}({', '.join(map(ast.unparse, node.bases))})"
            yield from names(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_public(node.target.id):
            default = "" if node.value is None else f" = {ast.unparse(node.value)}"
            yield f"{within}{node.target.id}: {ast.unparse(node.annotation)}{default}"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and is_public(node.targets[0].id):
            yield f"{within}{node.targets[0].id}"


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in ("__init__", "__len__", "__getitem__", "__iter__")


def test_public_names_are_those_that_are_written_down() -> None:
    kept, found = FILE.read_text(encoding="utf-8").splitlines(), surface().splitlines()
    gone, new = [line for line in kept if line not in found], [line for line in found if line not in kept]
    assert (gone, new) == ([], []), "if this is meant: python tests/test_api.py, and a line in CHANGELOG.md"
    assert kept == found


def test_changes_are_seen() -> None:
    before = list(
        names(ast.parse("def f(a: int) -> str: ...\nclass C(B):\n    x: int = 1\n    def m(self, y=2): ...").body)
    )
    assert before == ["f(a: int) -> str", "C(B)", "C.x: int = 1", "C.m(self, y=2)"]
    assert list(names(ast.parse("def _f(): ...\n_x = 1\nimport os\nfrom a import b").body)) == []


def test_every_public_name_exists_and_is_documented() -> None:
    for package in PACKAGES:
        assert len(package.__all__) == len(set(package.__all__)) > 15
        assert set(package.__all__) <= set(dir(package)) | {"hookimpl"}
        for name in package.__all__:
            value = getattr(package, name)
            assert inspect.getdoc(value) or name in ("LANDMARKS",), name


def test_public_names_do_not_hide_packages() -> None:
    folders = {file.parent.name for file in Path(str(fsf.__file__)).parent.glob("*/__init__.py")}
    assert folders and not folders & set(fsf.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match=r"fsframework.*Los"):
        fsf.Los  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.system
def test_import_is_fast_and_needs_no_torch() -> None:
    code = (
        "import sys, time; start = time.process_time(); import fsframework; used = time.process_time() - start\n"
        "dir(fsframework), fsframework.__all__\n"
        "print(sorted({'torch', 'numpy', 'pydantic', 'rich', 'click'} & set(sys.modules)), used < 0.2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[] True\n", done.stderr


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
    print(f"{FILE}: {len(surface().splitlines())} names")
