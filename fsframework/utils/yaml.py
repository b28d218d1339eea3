"""Parse YAML of unknown origin: plain values only, with the line of each.

Rejected are tags, anchors and aliases, duplicate keys, keys that are not text, deep nesting and large files. Plain
scalars follow the core schema of YAML 1.2 (section 10.3.2), with `_` allowed between digits: 1e-4 is a number and `no`
is text. There is no notation for infinity and not-a-number.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from fsframework.core.errors import UserError

MAX_BYTES = 200_000
MAX_DEPTH = 30

KeyPath = tuple[str | int, ...]  # keys and list indices from the root to a value
Marks = dict[KeyPath, int]  # the line of each value, from 1

_INTEGER = re.compile(r"[-+]?[0-9](?:[0-9_]*[0-9])?|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9](?:[0-9_]*[0-9])?(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_MAX_DIGITS = 50  # of a number


def load_yaml(path: str | Path) -> tuple[Any, Marks]:
    """Return the value in a YAML file, and the line of every value in it.

    Raises
    ------
    UserError
        The file cannot be read, is not YAML, or uses rejected syntax: `file: line N: what`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: is larger than {MAX_BYTES} bytes; is it the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: is not UTF-8 text; is it the right file?") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[Any, Marks]:
    """Return the value of a YAML text, and the line of every value in it.

    `name` begins error messages.

    Raises
    ------
    UserError
        As for `load_yaml`.
    """
    marks: Marks = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else _value(node, (), marks)), marks
    except _RejectedError as error:
        raise UserError(f"{name}: line {error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{name}: {line}{error.problem or error.context}; this is no YAML") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name}: {str(error).splitlines()[0]}; this is no YAML") from None


def dump_yaml(value: Any) -> str:
    """Return a YAML text that `parse_yaml` reads back to the same value; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def format_inline(value: Any) -> str:
    """Return a plain value as YAML on one line, at most 60 characters."""
    text = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, width=10_000, default_flow_style=True).split("\n")[0]
    return text if len(text) <= 60 else text[:57] + "..."


class _RejectedError(Exception):
    """Rejected syntax, with its line."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """YAML loader that composes nodes and stops at the first rejected event, before any value is constructed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = yaml.SafeLoader.peek_event(self)
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _RejectedError(line, "anchors and aliases (&, *) are not supported; write the value out")
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _RejectedError(line, f"tags are not supported; leave {tag} out")
        if self.depth == MAX_DEPTH:
            raise _RejectedError(line, f"nested more than {MAX_DEPTH} levels deep; use fewer levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes texts which YAML 1.1 or this module would read as another type; it writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"(?:{_INTEGER.pattern})$"), list("-+0123456789"))


def _value(node: yaml.Node, path: KeyPath, marks: Marks) -> Any:
    """Return the value of a node at a path, and record the lines of its parts in `marks`."""
    marks[path] = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _scalar(node.value, marks[path])
    if isinstance(node, yaml.SequenceNode):
        return [_value(entry, (*path, index), marks) for index, entry in enumerate(node.value)]
    mapping: dict[str, Any] = {}
    for key_node, entry in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or not (
            key_node.style or isinstance(_scalar(key_node.value, line), str)
        ):
            raise _RejectedError(line, "a key must be text; put it in quotes")
        key = key_node.value
        if key in mapping:
            raise _RejectedError(
                line, f"{'.'.join(map(str, (*path, key)))}: appears twice, first on line {marks[*path, key]}"
            )
        mapping[key] = _value(entry, (*path, key), marks)
        marks[*path, key] = line  # the line of the key, which is easier to find
    return mapping


def _scalar(text: str, line: int) -> Any:
    """Return the value of a plain scalar.

    Quoted scalars are texts: their `style` is not None, so `_value` does not pass them here.
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise _RejectedError(line, f"{text} is too large a number")
        return number
    return text
