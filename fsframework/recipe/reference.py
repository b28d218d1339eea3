"""What can be written in a recipe, for people (tables of keys) and for editors (JSON Schema).

`python -m fsframework.recipe.reference recipes/README.md` writes the tables into that file, below its marker.
"""

import json
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from fsframework.core.part import Part, use
from fsframework.core.registry import KINDS, SINGULAR, components
from fsframework.recipe.schema import Evaluation, Networks, Optimizer, Pairs, Recipe, Schedule, Stage
from fsframework.utils import yaml
from fsframework.utils.files import write_text

MARKER = "<!-- Generated from here on: python -m fsframework.recipe.reference recipes/README.md -->\n"


class Row(NamedTuple):
    """One key: all are short texts."""

    key: str
    type: str
    default: str  # empty where the key must be written
    meaning: str


def rows(model: type[BaseModel]) -> list[Row]:
    """The keys of a model of a recipe, or of the options of a component."""
    return [
        Row(name, _type(field.annotation, tuple(field.metadata)), _default(field), field.description or "")
        for name, field in model.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "{}" if value == type(value)() else yaml.format_inline(value.model_dump(mode="json"))
    if isinstance(value, Part):
        return yaml.format_inline(value.dump())
    return yaml.format_inline(list(value) if isinstance(value, tuple) else value)


_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", NoneType: "null", Path: "path"}


def _type(hint: Any, marks: tuple[Any, ...] = ()) -> str:
    """A type in words; `marks` are limits and the like that hold for it."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(hint.__origin__, (*marks, *hint.__metadata__))
    if origin is Literal:
        return " or ".join(yaml.format_inline(choice) for choice in inside)
    if origin in (Union, UnionType):
        return " or ".join(_type(each, marks) for each in inside)
    if origin is list:
        return f"list, each: {_type(inside[0])}"
    if origin is tuple:
        return f"[{', '.join(_type(each) for each in inside if each is not ...)}]"
    if hint is Part:
        noun = SINGULAR[next(mark.kind for mark in marks if isinstance(mark, use))]
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "keys of its own"
    limits = [] if hint is NoneType else _limits(marks)
    return " ".join([_NAMES.get(hint, str(hint)), ", ".join(limits)]).strip()


def _limits(marks: tuple[Any, ...]) -> list[str]:
    flat = [each for mark in marks for each in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    return [f"{sign} {getattr(each, key)}" for each in flat for key, sign in _LIMITS.items() if hasattr(each, key)]


def tables() -> str:
    """Every key of a recipe, as Markdown."""
    parts = [_table("recipe", Recipe), _table("networks", Networks), _table("stages", Stage)]
    parts += [_table(f"stages: {name}", model) for name, model in _STAGE_PARTS.items()]
    return "\n".join([*parts, _table("evaluation", Evaluation)])


_STAGE_PARTS: dict[str, type[BaseModel]] = {"pairs": Pairs, "optimizer": Optimizer, "schedule": Schedule}


def _table(heading: str, model: type[BaseModel]) -> str:
    lines = [f"## {heading}", "", model.__doc__ or "", "", "| key | value | default | meaning |", "|---|---|---|---|"]
    for row in rows(model):
        cells = [f"`{row.key}`", row.type, f"`{row.default}`" if row.default else "required", row.meaning]
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])


_ELSEWHERE = "https://fsframework.invalid/"  # pydantic leaves references alone that lead out of its document


class _Generator(GenerateJsonSchema):
    """Keeps the references that `fsframework.core.part.use` makes; `schema` writes what they refer to."""

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        found = super().generate_inner(schema)
        kind = found.get("$ref", "").removeprefix("#/$defs/")
        return {**found, "$ref": _ELSEWHERE + kind} if kind in KINDS else found


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of recipes, with all installed components and their options."""
    options = {(kind, name): cls.Options for kind in KINDS for name, cls in components(kind).items()}
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [(Recipe, "validation")]
    models += [(model, "validation") for model in dict.fromkeys(options.values())]
    references, whole = models_json_schema(models, schema_generator=_Generator)
    definitions = whole["$defs"]
    for kind in KINDS:
        choices = []
        for name, cls in components(kind).items():
            reference = references[options[kind, name], "validation"]["$ref"]
            described = definitions[reference.removeprefix("#/$defs/")]
            choices.append(_component(name, (cls.__doc__ or "").strip().partition("\n")[0], described))
        definitions[kind] = {"anyOf": choices} if choices else False
    for model in options.values():
        definitions.pop(references[model, "validation"]["$ref"].removeprefix("#/$defs/"), None)
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fsframework recipe"}
    complete = {**dialect, **references[Recipe, "validation"], "$defs": definitions}
    return dict(json.loads(json.dumps(complete).replace(_ELSEWHERE, "#/$defs/")))


def _component(name: str, meaning: str, options: dict[str, Any]) -> dict[str, Any]:
    properties = {"use": {"const": name, "description": meaning}, **options.get("properties", {})}
    required = ["use", *options.get("required", [])]
    return {**options, "title": name, "description": meaning, "properties": properties, "required": required}


def write_tables(file: Path) -> None:
    """Put the tables into a Markdown file, in place of what follows the marker."""
    introduction, marker, _ = file.read_text(encoding="utf-8").partition(MARKER)
    write_text(file, f"{introduction}{marker or MARKER}\n{tables()}")


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
