"""`Part`, the type of an option that names a component, and the parts of a recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fsframework.core.components import Model as Model  # what `register_models` returns
from fsframework.core.registry import GROUP, SINGULAR, component, components, registry, unknown


@dataclass(frozen=True)
class Part:
    """A component that a recipe names, with its checked options: `{use: NAME, OPTION: VALUE, ...}`."""

    kind: str
    name: str
    options: Any

    def build(self, *args: Any) -> Any:
        """The component, allocated and not loaded; `args` are what its kind takes after the options."""
        return component(self.kind, self.name)(self.options, *args)  # type: ignore[call-arg]

    def build_estimator(self, quantity: str, option: str) -> Any:
        """The estimator, built; `option` is where it is named. Raises ValueError if it gives another quantity."""
        built = self.build()
        if built.quantity != quantity:
            raise ValueError(f"{option}: {self.name} gives {built.quantity}, not {quantity}")
        return built

    def dump(self) -> dict[str, Any]:
        """The mapping that a recipe would hold, with every option written out."""
        return {"use": self.name, **self.options.model_dump(mode="json")}


def parts(value: Any) -> Iterator[Part]:
    """Every component that a recipe, or any value in one, names, at any depth, outer before inner."""
    if isinstance(value, Part):
        yield value
        yield from parts(value.options)
    elif isinstance(value, BaseModel):
        for _, entry in value:
            yield from parts(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from parts(entry)


def providers(value: Any) -> dict[str, list[str]]:
    """Which components a recipe takes from which distribution: {"fsf-x 0.2": ["loss x", ...], ...}, ours first."""
    installed = registry()
    found: dict[str, list[str]] = {}
    for part in parts(value):
        plugin = installed.components[part.kind][part.name].plugin
        found.setdefault(installed.distributions[plugin], []).append(f"{SINGULAR[part.kind]} {part.name}")
    ordered = sorted(found, key=lambda distribution: (distribution.partition(" ")[0] != GROUP, distribution))
    return {distribution: list(dict.fromkeys(found[distribution])) for distribution in ordered}


def part(kind: str, name: str, /, **options: Any) -> Part:
    """A part made in Python. Raises UserError for an unknown name, pydantic.ValidationError for wrong options."""
    return Part(kind, name, component(kind, name).Options(**options))


@dataclass(frozen=True)
class use:
    """Marks an option as one that names a component: `detector: Annotated[Part, use("detectors")]`."""

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(Part.dump)
        )

    def _validate(self, value: Any) -> Part:
        if isinstance(value, Part):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("use"), str):
            raise PydanticCustomError("component", f"name a {SINGULAR[self.kind]} like this: {{use: NAME}}")
        name = value["use"]
        if name not in components(self.kind):
            raise PydanticCustomError("component", unknown(self.kind, name))
        options = {key: entry for key, entry in value.items() if key != "use"}
        # A ValidationError raised here keeps its places: pydantic puts this option's place before them.
        return part(self.kind, name, **options)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # A reference, because components can nest; `fsframework.recipe.reference.schema` adds the definitions.
        return {"$ref": f"#/$defs/{self.kind}"}
