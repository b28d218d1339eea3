"""The values of a recipe file with `--set` overrides, where each came from, and errors that say so."""

import difflib
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fsframework.core.errors import UserError
from fsframework.core.part import use
from fsframework.core.registry import component, unmet
from fsframework.core.renamed import present_key
from fsframework.utils import yaml
from fsframework.utils.yaml import Marks, Place


class ConfigSource:
    """What a file and overrides say, before anything is checked.

    Parameters
    ----------
    read:
        What `safe_yaml` read: a mapping, and the lines of everything in it.
    name:
        What it was read from.
    defaults:
        Values of the keys that it leaves out, where overrides must find them.

    Raises
    ------
    UserError
        It is no mapping.
    """

    def __init__(self, read: tuple[Any, Marks], name: str, defaults: dict[str, Any]) -> None:
        self.data, marks = read
        if not isinstance(self.data, dict):
            raise UserError(f"{name}: line 1: a recipe is a mapping; begin with name: NAME")
        self.origins = {place: f"{name}: line {line}" for place, line in marks.items()}
        self.origins[()] = name
        self.data = {**defaults, **self.data}

    def override(self, text: str) -> None:
        """Set one value: `stages.0.batch_size=8`, counted from 0, with a value in YAML.

        Setting `use` to another name drops the former component's options. Raises UserError, naming the override.
        """
        origin = f"--set {text}"
        key, equals, value = text.partition("=")
        steps = key.split(".")
        if not equals or "" in steps:
            raise UserError(f"{origin}: write KEY=VALUE, such as stages.0.batch_size=8")
        parsed, marks = yaml.parse_yaml(value, origin)
        container, place = self.data, Place()
        for step in steps[:-1]:
            name = _step(container, step, place, origin)
            place = (*place, name)
            if isinstance(container, dict) and container.get(name) is None:
                container[name] = {}
                self.origins[place] = origin
            container = container[name]
        last = _step(container, steps[-1], place, origin)
        if last == "use" and container.get("use") != parsed:
            container.clear()
            self._forget(place)
        self._forget((*place, last))
        container[last] = parsed
        self.origins.update({(*place, last, *below): origin for below in marks or [()]})

    def _forget(self, place: Place) -> None:
        for known in [known for known in self.origins if known[: len(place)] == place and known != place]:
            del self.origins[known]

    def explain(self, error: ValidationError, model: type[BaseModel]) -> UserError:
        """All errors of a validation by `model`, one a line: `file: line 7: stages.0.steps: what`."""
        lines = []
        for entry in error.errors(include_url=False):
            place = entry["loc"] if entry["type"] == "missing" else self._existing(entry["loc"])
            # An unknown component is a mistake in its `use`, which an override may have set.
            marked = (*place, "use") if entry["type"] == "component" else place
            origin = next(self.origins[marked[:n]] for n in range(len(marked), -1, -1) if marked[:n] in self.origins)
            where = f"{'.'.join(map(str, place))}: " if place else ""
            lines.append(f"{origin}: {where}{self._what(entry, place, model)}")
        return UserError("\n".join(dict.fromkeys(lines)))

    def _existing(self, loc: Place) -> Place:
        """A place without what pydantic adds for the branches of a union."""
        value: Any = self.data
        for depth, step in enumerate(loc):
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return loc[:depth]
        return loc

    def _what(self, entry: ErrorDetails, place: Place, model: type[BaseModel]) -> str:
        if entry["type"] == "extra_forbidden":
            return _no_such_key(str(place[-1]), keys_at(model, self.data, place[:-1]))
        if entry["type"] in _MESSAGES:
            return _MESSAGES[entry["type"]]
        message = entry["msg"]
        for words in ("Value error, ", "Input ", "String "):
            message = message.removeprefix(words)
        if entry["type"] == "component":
            missing = self._missing()
            return message.partition("; ")[0] + missing if missing else message
        given = entry["input"]
        is_plain = entry["type"] not in _OWN and isinstance(given, str | int | float | None)
        return f"{message}, not {yaml.format_inline(given)}" if is_plain else message

    def _missing(self) -> str:
        """What to install, where the recipe requires something that is not there."""
        required = self.data.get("requires")
        names = [each for each in required if isinstance(each, str)] if isinstance(required, list) else []
        return "".join(f"; {what}" for name in names if (what := unmet(name)))


_MESSAGES = {
    "missing": "is missing; write it",
    "model_type": "should be a mapping, KEY: VALUE",
    "list_type": "should be a list, [VALUE, ...]",
    "tuple_type": "should be a list, [VALUE, ...]",
}
_OWN = ("component", "stage", "value_error")  # types of errors whose messages are ours


def _step(container: Any, step: str, place: Place, origin: str) -> str | int:
    """The key or index that one step of an override means in what it is taken in."""
    where = ".".join(map(str, place))
    if isinstance(container, dict):
        return step
    if not isinstance(container, list):
        raise UserError(f"{origin}: {where} is a plain value and has no {step}")
    if not step.isdecimal() or int(step) >= len(container):
        raise UserError(f"{origin}: {where} has {len(container)} entries, counted from 0; there is no {step}")
    return int(step)


def _no_such_key(key: str, keys: Sequence[str]) -> str:
    if new := present_key(key, list(keys)):
        return f"there is no such key; it is called {new} now"
    close = difflib.get_close_matches(key, keys, n=1)
    if close:
        return f"there is no such key; did you mean {close[0]}?"
    hint = f"the keys are {', '.join(keys)}" if keys else "leave it out"
    return f"there is no such key; {hint}"


def keys_at(model: type[BaseModel], data: Any, place: Place) -> list[str]:
    """The keys that may stand at a place of data that `model` checks; none where that cannot be told."""
    hint: Any = model
    value = data
    for step in place:
        checked, _ = _model(hint, value)
        entries = [checked.model_fields[str(step)].rebuild_annotation()] if checked else get_args(_bare(hint))
        if not entries:
            return []
        hint, value = entries[-1], value[step]  # lists hold entries of their one argument, mappings of their second
    checked, extra = _model(hint, value)
    return [*extra, *(checked.model_fields if checked else ())]


def _model(hint: Any, value: Any) -> tuple[type[BaseModel] | None, list[str]]:
    """The model that checks a mapping where `hint` stands, and the keys beside its fields."""
    bare = _bare(hint)
    if isinstance(bare, use):
        return component(bare.kind, value["use"]).Options, ["use"]
    return (bare, []) if isinstance(bare, type) and issubclass(bare, BaseModel) else (None, [])


def _bare(hint: Any) -> Any:
    """A type hint without `Annotated` and `| None`; the mark `use` where it has one."""
    while get_origin(hint) in (Annotated, Union, UnionType):
        if get_origin(hint) is Annotated:
            hint = next((mark for mark in hint.__metadata__ if isinstance(mark, use)), hint.__origin__)
        else:
            hint = next(choice for choice in get_args(hint) if choice is not type(None))
    return hint
