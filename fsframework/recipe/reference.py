"""Document all keys of recipes, for users (tables in Markdown) and for editors (JSON Schema).

`python -m fsframework.recipe.reference recipes/README.md` writes the tables into that file, after its marker.
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
    """One key, as short texts."""

    key: str
    type: str
    default: str  # empty if the key is required
    meaning: str


def rows(model: type[BaseModel]) -> list[Row]:
    """Return the keys of a recipe's model, or of a component's options."""
    return [
        Row(name, _type(field.annotation, tuple(field.metadata)), _default(field), field.description or "")
        for name, field in model.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    """Return a field's default as inline YAML, "" if it is required."""
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
    """Return a type as text; `marks` are its limits and other annotations."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(hint.__origin__, (*marks, *hint.__metadata__))
    if origin is Literal:
        return " or ".join(yaml.format_inline(choice) for choice in inside)
    if origin in (Union, UnionType):
        return " or ".join(_type(member, marks) for member in inside)
    if origin is list:
        return f"list, each: {_type(inside[0])}"
    if origin is dict:
        return f"mapping, each: {_type(inside[1])}"
    if origin is tuple:
        return f"[{', '.join(_type(member) for member in inside if member is not ...)}]"
    if hint is Part:
        noun = SINGULAR[next(mark.kind for mark in marks if isinstance(mark, use))]
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "keys of its own"
    limits = [] if hint is NoneType else _limits(marks)
    return " ".join([_NAMES.get(hint, str(hint)), ", ".join(limits)]).strip()


def _limits(marks: tuple[Any, ...]) -> list[str]:
    """Return the numeric limits in annotations as text."""
    flat = [limit for mark in marks for limit in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    return [f"{sign} {getattr(limit, key)}" for limit in flat for key, sign in _LIMITS.items() if hasattr(limit, key)]


def tables() -> str:
    """Return tables of all keys of a recipe, as Markdown."""
    parts = [_table("recipe", Recipe), _table("networks", Networks), _table("stages", Stage)]
    parts += [_table(f"stages: {name}", model) for name, model in _STAGE_PARTS.items()]
    return "\n".join([*parts, _table("evaluation", Evaluation)])


_STAGE_PARTS: dict[str, type[BaseModel]] = {"pairs": Pairs, "optimizer": Optimizer, "schedule": Schedule}


def _table(heading: str, model: type[BaseModel]) -> str:
    """Return the table of a model's keys, as Markdown."""
    lines = [f"## {heading}", "", model.__doc__ or "", "", "| key | value | default | meaning |", "|---|---|---|---|"]
    for row in rows(model):
        cells = [f"`{row.key}`", row.type, f"`{row.default}`" if row.default else "required", row.meaning]
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])


_ELSEWHERE = "https://fsframework.invalid/"  # pydantic keeps references to other documents


class _Generator(GenerateJsonSchema):
    """Schema generator that keeps the references of `fsframework.core.part.use`, which `schema` resolves."""

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        generated = super().generate_inner(schema)
        kind = generated.get("$ref", "").removeprefix("#/$defs/")
        return {**generated, "$ref": _ELSEWHERE + kind} if kind in KINDS else generated


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of recipes, with all installed components and their options."""
    options = {(kind, name): cls.Options for kind in KINDS for name, cls in components(kind).items()}
    models: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [(Recipe, "validation")]
    models += [(model, "validation") for model in dict.fromkeys(options.values())]
    references, document = models_json_schema(models, schema_generator=_Generator)
    definitions = document["$defs"]
    for kind in KINDS:
        choices = []
        for name, cls in components(kind).items():
            reference = references[options[kind, name], "validation"]["$ref"]
            options_schema = definitions[reference.removeprefix("#/$defs/")]
            choices.append(_component(name, (cls.__doc__ or "").strip().partition("\n")[0], options_schema))
        definitions[kind] = {"anyOf": choices} if choices else False
    for model in options.values():
        definitions.pop(references[model, "validation"]["$ref"].removeprefix("#/$defs/"), None)
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fsframework recipe"}
    complete = {**dialect, **references[Recipe, "validation"], "$defs": definitions}
    return dict(json.loads(json.dumps(complete).replace(_ELSEWHERE, "#/$defs/")))


def _component(name: str, meaning: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of a component with its options."""
    properties = {"use": {"const": name, "description": meaning}, **options.get("properties", {})}
    required = ["use", *options.get("required", [])]
    return {**options, "title": name, "description": meaning, "properties": properties, "required": required}


def write_tables(file: Path) -> None:
    """Replace the text after the marker in a Markdown file with the tables."""
    introduction, marker, _ = file.read_text(encoding="utf-8").partition(MARKER)
    write_text(file, f"{introduction}{marker or MARKER}\n{tables()}")


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
