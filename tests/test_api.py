"""What plugins may import, written down in public_api.txt, so that nothing of it changes unseen.

After a change that is meant: `python tests/test_api.py` writes the file anew; a removal or an incompatible change also
needs a line in CHANGELOG.md.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).with_name("public_api.txt")
MODULES = [
    "core.bases",
    "core.components",
    "core.errors",
    "core.hookspecs",
    "core.part",
    "core.registry",
    "core.swapper",
    "core.types",
    "data.collate",
    "data.eval_pairs",
    "data.samples",
    "faces.align",
    "faces.color_transfer",
    "media.image_io",
    "media.tensor",
    "media.video_io",
    "ops.allocator",
    "ops.conv",
    "ops.csrc.build",
    "ops.instance_norm",
    "ops.precision",
    "ops.triton.instance_norm",
    "ops.triton.launch",
    "ops.triton.upsample",
    "ops.upsample",
    "testing.check_component",
    "testing.samples",
    "training.cuda_graph",
    "training.optim",
    "utils.environment",
    "utils.files",
    "utils.progress",
    "utils.weights",
]


def surface() -> str:
    """A line for each public name: its module, its name, and how it is called or what type it has."""
    lines = ["fsframework.hookimpl"]
    for module in MODULES:
        found = importlib.util.find_spec(f"fsframework.{module}")
        assert found is not None and found.origin is not None
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
        lines += [f"fsframework.{module}.{line}" for line in names(tree.body)]
    return "\n".join(lines) + "\n"


def names(body: list[ast.stmt], within: str = "") -> Iterator[str]:
    """The public names of a module or a class, in their order."""
    for node in body:
        if isinstance(node, ast.ImportFrom):  # only what is re-exported on purpose: `Model as Model`
            yield from (f"{alias.name}" for alias in node.names if alias.asname == alias.name)
        elif isinstance(node, ast.FunctionDef) and is_public(node.name):
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


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
    print(f"{FILE}: {len(surface().splitlines())} names")
