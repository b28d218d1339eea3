"""Load a package's public names at first use (PEP 562), so that importing the package costs nothing.

lazy_loader does the same from a stub file, but only for names of modules below the package itself.
"""

import ast
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    The names are those that its `if TYPE_CHECKING:` block imports, so that type checkers, editors and the interpreter
    read one list.

    Parameters
    ----------
    package:
        Its `__name__`.
    file:
        Its `__file__`.
    """
    homes: dict[str, str] = {}
    for block in ast.parse(Path(file).read_text(encoding="utf-8")).body:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for node in block.body:
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    homes |= {alias.name: node.module for alias in node.names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return get, lambda: sorted(homes), sorted(homes)


@contextmanager
def loading() -> Iterator[None]:
    """Import and load in the block without garbage collection, which then skips what the block created.

    Importing torch and loading networks creates hundreds of thousands of objects that stay. Each full collection visits
    them all in vain: 0.4 of 3.1 seconds of processor time of `fsf swap` on one picture.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
