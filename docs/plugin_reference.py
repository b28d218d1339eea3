"""Markdown of the hooks, their base classes and an example of each, for plugins/README.md.

`cog -r plugins/README.md` inserts it. Examples are the files of plugins/fsf_template.
"""

import inspect
import re
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from fsframework import testing
from fsframework.core import hookspecs, types
from fsframework.core.components import Component, Network
from fsframework.core.registry import KINDS, SINGULAR
from fsframework.testing import contract, samples
from fsframework.testing.contract import CHECKS
from fsframework.testing.data_checks import ALONE
from fsframework.testing.scaffold import WIDTH


def sections() -> str:
    """Return a section for each hook, headed by its signature."""
    parts = [_section(kind, base) for kind, base in KINDS.items()]
    return "\n".join([*parts, _models()])


def signature(hook: str) -> str:
    """Return a hook's signature: `register_losses() -> list[type[Loss]]`."""
    function = getattr(hookspecs, hook)
    text = str(inspect.signature(function)).replace("fsframework.core.components.", "")
    return f"{hook}{text}"


def _section(kind: str, base: type[Component]) -> str:
    hook = f"register_{kind.replace('-', '_')}"
    lines = [f"### `{signature(hook)}`", "", inspect.cleandoc(getattr(hookspecs, hook).__doc__ or ""), ""]
    lines += [*_list_apart(_prose(inspect.cleandoc(base.__doc__ or ""))), *_members(base), ""]
    lines += ["```python", example(kind).rstrip("\n"), "```", ""]
    return "\n".join(lines)


def _list_apart(text: str) -> list[str]:
    """Return the lines of prose, with an empty line after it unless it ends with bullets."""
    lines = text.splitlines()
    return lines if lines[-1].startswith("* ") else [*lines, ""]


def _members(base: type[Component]) -> list[str]:
    """Return a bullet for each attribute and method that a class may define, with its meaning."""
    source = inspect.getsource(base)
    bullets = []
    for name, meaning in re.findall(r"^    (\w+: [^#\n]+?)  # (.+)$", source, re.MULTILINE):
        plain = re.sub(r"ClassVar\[(.*)\]", r"\1", name)
        bullets.append(f"* `{plain}`: {meaning}")
    for name, value in vars(base).items():
        function = value.fget if isinstance(value, property) else value
        if (name.startswith("_") and name not in ("__len__", "__getitem__")) or not inspect.isfunction(function):
            continue
        if name == "train":
            continue
        heading = name if isinstance(value, property) else f"{name}{_arguments(function)}"
        first = _prose(inspect.cleandoc(function.__doc__ or "")).partition("\n\n")[0].replace("\n", " ")
        bullets.append(f"* `{heading}`" + (f": {first}" if first else ""))
    return bullets


def _arguments(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"({', '.join(names)})"


def _prose(text: str) -> str:
    """Return a docstring with its parameter sections converted to bullets."""
    text = re.sub(r"^Parameters\n-+\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^(\w+(?:, \w+)*):\n((?:    .*\n?)+)", _parameter, text, flags=re.MULTILINE).strip()


def _parameter(match: re.Match[str]) -> str:
    words = " ".join(line.strip() for line in match[2].splitlines())
    return f"* `{match[1]}`: {words}\n"


def example(kind: str) -> str:
    """Return the template's component of a kind, renamed to `MyLoss` and `my-loss`, and its hook."""
    noun = SINGULAR[kind].replace(" ", "_")
    file = Path(str(resources.files("fsf_template"))) / f"{noun}.py"
    text = file.read_text(encoding="utf-8").replace("Template", "My").replace("template", "my")
    cls = "My" + "".join(word.capitalize() for word in noun.split("_"))
    text = re.sub(r"^from fsframework import (\([^)]*\)|.*)$", _with_hookimpl, text, count=1, flags=re.MULTILINE)
    base = KINDS[kind].__name__
    hook = f"register_{kind.replace('-', '_')}"
    return f"{text}\n\n@hookimpl\ndef {hook}() -> list[type[{base}]]:\n    return [{cls}]\n"


def _with_hookimpl(statement: re.Match[str]) -> str:
    """Return an import of the framework that brings `hookimpl`, too, in ruff's order and form."""
    names = [*re.findall(r"\w+", statement[1]), "hookimpl"]
    ordered = sorted(names, key=lambda name: (name[0].islower(), name.lower()))
    line = f"from fsframework import {', '.join(ordered)}"
    return line if len(line) <= WIDTH else f"from fsframework import (\n    {f',{chr(10)}    '.join(ordered)},\n)"


def _models() -> str:
    return "\n".join(
        [
            f"### `{signature('register_models')}`",
            "",
            inspect.cleandoc(hookspecs.register_models.__doc__ or ""),
            "",
            "`fsf export RUN FILE` writes such a file. Beside a module that holds it, as package data:",
            "",
            "```python",
            "from pathlib import Path",
            "",
            "from fsframework import Model, hookimpl",
            "",
            "",
            "@hookimpl",
            "def register_models() -> list[Model]:",
            '    file = Path(__file__).parent / "mine.safetensors"',
            '    return [Model(name="mine", file=file, sha256=None)]  # better with the hash: 64 hexadecimal digits',
            "```",
            "",
        ]
    )


def values() -> str:
    """Return tables of the fields of the dataclasses that components exchange."""
    parts = []
    for cls in (types.Face, types.AlignedFace, types.Sample, types.FaceBatch, types.SwapBatch, types.SwapResult):
        meanings = dict(re.findall(r"^    (\w+): [^#\n]+?  # (.+)$", inspect.getsource(cls), re.MULTILINE))
        first = (cls.__doc__ or "").partition("\n")[0]
        parts += [f"**{cls.__name__}**: {first}", "", "| field | meaning |", "|---|---|"]
        parts += [f"| `{entry.name}` | {meanings.get(entry.name, '')} |" for entry in fields(cls)]
        parts.append("")
    return "\n".join(parts).rstrip("\n")


def checks_table() -> str:
    """Return a table of the checks: name, requirement and kinds of components."""
    rows: dict[str, tuple[str, list[str]]] = {}
    for kind, checks in {**CHECKS, "benchmarks": (*CHECKS["benchmarks"], *ALONE)}.items():
        for check in checks:
            meaning = (check.run.__doc__ or "").partition("\n")[0].removeprefix("Check that ")
            rows.setdefault(f"{check.name}: {meaning}", (check.name, []))[1].append(kind)
    lines = ["| check | what must hold | for |", "|---|---|---|"]
    for key, (name, kinds) in rows.items():
        scope = "all" if len(set(kinds)) == len(KINDS) else ", ".join(dict.fromkeys(kinds))
        requirement = key.partition(": ")[2]
        lines.append(f"| `{name}` | {requirement[:1].upper()}{requirement[1:]} | {scope} |")
    return "\n".join(lines)


def helpers() -> str:
    """Return bullets of the functions and classes for plugins' tests."""
    lines = []
    for module in (contract, samples):
        for name, value in vars(module).items():
            is_local = getattr(value, "__module__", "") == module.__name__ and name in testing.__all__
            if is_local and (inspect.isfunction(value) or inspect.isclass(value)):
                heading = f"{name}{_arguments(value)}" if inspect.isfunction(value) else name
                first = inspect.cleandoc(value.__doc__ or "").partition("\n")[0]
                lines.append(f"* `fsframework.testing.{heading}`: {first}")
    return "\n".join(lines)


def common() -> str:
    """Return bullets of the attributes and methods of the base class of all networks."""
    return "\n".join([*_members(Component), *_members(Network)])
