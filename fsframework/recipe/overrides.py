"""Apply `--set` overrides to a recipe's values, record where each value came from, and report errors with it."""

import json
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fsframework.core.errors import UserError, did_you_mean
from fsframework.core.part import use
from fsframework.core.registry import component, unmet
from fsframework.core.renamed import present_key
from fsframework.utils import yaml
from fsframework.utils.yaml import KeyPath, Marks


class ConfigSource:
    """Values of a file with overrides, before validation.

    Parameters
    ----------
    read:
        The result of `parse_yaml`: a mapping, and the line of every value in it.
    name:
        The name of the file, for messages.
    defaults:
        Values of missing keys, so that overrides can change parts of them.

    Raises
    ------
    UserError
        The value is not a mapping.
    """

    def __init__(self, read: tuple[Any, Marks], name: str, defaults: dict[str, Any]) -> None:
        self.data, marks = read
        if not isinstance(self.data, dict):
            raise UserError(f"{name}: line 1: a recipe is a mapping; start with name: NAME")
        self.origins = {path: f"{name}: line {line}" for path, line in marks.items()}
        self.origins[()] = name
        self.data = {**defaults, **self.data}

    def override(self, text: str) -> None:
        """Set one value: `stages.0.batch_size=8`, with indices from 0 and a value in YAML.

        Setting `use` to another name removes the previous component's options. Raises UserError with the override.
        """
        origin = f"--set {text}"
        key, equals, value = text.partition("=")
        steps = key.split(".")
        if not equals or "" in steps:
            raise UserError(f"{origin}: write KEY=VALUE, such as stages.0.batch_size=8")
        parsed, marks = yaml.parse_yaml(value, origin)
        container, path = self.data, KeyPath()
        for step in steps[:-1]:
            name = _step(container, step, path, origin)
            path = (*path, name)
            if isinstance(container, dict) and container.get(name) is None:
                container[name] = {}
                self.origins[path] = origin
            container = container[name]
        last = _step(container, steps[-1], path, origin)
        if last == "use" and container.get("use") != parsed:
            container.clear()
            self._forget(path)
        self._forget((*path, last))
        container[last] = parsed
        self.origins.update({(*path, last, *below): origin for below in marks or [()]})

    def _forget(self, path: KeyPath) -> None:
        """Remove the origins of all values below a path."""
        for other in [other for other in self.origins if other[: len(path)] == path and other != path]:
            del self.origins[other]

    def explain(self, error: ValidationError, model: type[BaseModel]) -> UserError:
        """Return all errors of a validation by `model`, one per line: `file: line 7: stages.0.steps: what`."""
        lines = []
        for entry in error.errors(include_url=False):
            path = entry["loc"] if entry["type"] == "missing" else self._existing(entry["loc"])
            # The line of an unknown component is that of its `use`, which an override may have set.
            lookup = (*path, "use") if entry["type"] == "component" else path
            origin = next(self.origins[lookup[:n]] for n in range(len(lookup), -1, -1) if lookup[:n] in self.origins)
            prefix = f"{'.'.join(map(str, path))}: " if path else ""
            lines.append(f"{origin}: {prefix}{self._what(entry, path, model)}")
        return UserError("\n".join(dict.fromkeys(lines)))

    def _existing(self, loc: KeyPath) -> KeyPath:
        """Return a path without the steps that pydantic adds for branches of a union."""
        value: Any = self.data
        for depth, step in enumerate(loc):
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return loc[:depth]
        return loc

    def _what(self, entry: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
        """Return the message of one validation error."""
        if entry["type"] == "extra_forbidden":
            return _no_such_key(str(path[-1]), keys_at(model, self.data, path[:-1]))
        if entry["type"] in _MESSAGES:
            return _MESSAGES[entry["type"]]
        message = entry["msg"]
        for words in ("Value error, ", "Input ", "String "):
            message = message.removeprefix(words)
        if entry["type"] == "component":
            missing = self._missing()
            return message.partition("; ")[0] + missing if missing else message
        input_value = entry["input"]
        is_plain = entry["type"] not in _OWN and isinstance(input_value, str | int | float | None)
        return f"{message}, not {yaml.format_inline(input_value)}" if is_plain else message

    def _missing(self) -> str:
        """Return install hints for required distributions that are missing."""
        required = self.data.get("requires")
        names = [entry for entry in required if isinstance(entry, str)] if isinstance(required, list) else []
        return "".join(f"; {what}" for name in names if (what := unmet(name)))


_MESSAGES = {
    "missing": "is missing; write it",
    "dict_type": "should be a mapping, KEY: VALUE",
    "model_type": "should be a mapping, KEY: VALUE",
    "list_type": "should be a list, [VALUE, ...]",
    "tuple_type": "should be a list, [VALUE, ...]",
}
_OWN = ("component", "stage", "value_error")  # types of errors with complete messages


def with_pairs(sets: Sequence[str], pairs: int | str | None) -> list[str]:
    """Return overrides, and one for the evaluation's pairs if any are given: a list's name or file, or a number."""
    if pairs is None:
        return list(sets)
    return [*sets, f"evaluation.pairs={pairs if str(pairs).isdecimal() else json.dumps(pairs)}"]


def _step(container: Any, step: str, path: KeyPath, origin: str) -> str | int:
    """Return the key or index in a container for one step of an override."""
    where = ".".join(map(str, path))
    if isinstance(container, dict):
        return step
    if not isinstance(container, list):
        raise UserError(f"{origin}: {where} is a plain value and has no {step}")
    if not step.isdecimal() or int(step) >= len(container):
        raise UserError(f"{origin}: {where} has {len(container)} entries, counted from 0; there is no {step}")
    return int(step)


def _no_such_key(key: str, keys: Sequence[str]) -> str:
    """Return the message for an unknown key, with the closest existing one."""
    if new := present_key(key, list(keys)):
        return f"there is no such key; it is now called {new}"
    hint = f"the keys are {', '.join(keys)}" if keys else "leave it out"
    return f"there is no such key; {did_you_mean(key, keys, hint)}"


def keys_at(model: type[BaseModel], data: Any, path: KeyPath) -> list[str]:
    """Return the allowed keys at a path of data that `model` validates; [] if they cannot be determined."""
    hint: Any = model
    value = data
    for step in path:
        checked, _ = _model(hint, value)
        entries = [checked.model_fields[str(step)].rebuild_annotation()] if checked else get_args(_bare(hint))
        if not entries:
            return []
        hint, value = entries[-1], value[step]  # the entries' type: a list's only argument, a mapping's second
    checked, extra = _model(hint, value)
    return [*extra, *(checked.model_fields if checked else ())]


def _model(hint: Any, value: Any) -> tuple[type[BaseModel] | None, list[str]]:
    """Return the model that validates a mapping of type `hint`, and the keys beside its fields."""
    bare = _bare(hint)
    if isinstance(bare, use):
        return component(bare.kind, value["use"]).Options, ["use"]
    return (bare, []) if isinstance(bare, type) and issubclass(bare, BaseModel) else (None, [])


def _bare(hint: Any) -> Any:
    """Return a type hint without `Annotated` and `| None`, or its mark `use`."""
    while get_origin(hint) in (Annotated, Union, UnionType):
        if get_origin(hint) is Annotated:
            hint = next((mark for mark in hint.__metadata__ if isinstance(mark, use)), hint.__origin__)
        else:
            hint = next(choice for choice in get_args(hint) if choice is not type(None))
    return hint
