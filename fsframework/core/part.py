"""`Part`, the type of options that name a component, and the parts of a recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fsframework.core.components import Model as Model  # returned by `register_models`
from fsframework.core.registry import GROUP, SINGULAR, component, components, registry, unknown


@dataclass(frozen=True)
class Part:
    """A component with validated options, in recipes `{use: NAME, OPTION: VALUE, ...}`."""

    kind: str
    name: str
    options: Any

    def build(self, *args: Any) -> Any:
        """Return the component, constructed and not loaded; `args` are its kind's arguments after the options."""
        return component(self.kind, self.name)(self.options, *args)  # type: ignore[call-arg]

    def build_estimator(self, quantity: str, option: str) -> Any:
        """Return the estimator, not loaded. Raise ValueError, naming `option`, if it estimates another quantity."""
        built = self.build()
        if built.quantity != quantity:
            raise ValueError(f"{option}: {self.name} estimates {built.quantity}, not {quantity}")
        return built

    def dump(self) -> dict[str, Any]:
        """Return the mapping as in a recipe, with all options."""
        return {"use": self.name, **self.options.model_dump(mode="json")}


def parts(value: Any) -> Iterator[Part]:
    """Yield the components that a recipe, or a value in one, names at any depth, outer before inner."""
    if isinstance(value, Part):
        yield value
        yield from parts(value.options)
    elif isinstance(value, BaseModel):
        for _, entry in value:
            yield from parts(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from parts(entry)
    elif isinstance(value, dict):
        yield from parts(list(value.values()))


def providers(value: Any) -> dict[str, list[str]]:
    """Return a recipe's components by distribution: {"fsf-x 0.2": ["loss x", ...], ...}, the framework's first."""
    installed = registry()
    by_distribution: dict[str, list[str]] = {}
    for part in parts(value):
        plugin = installed.components[part.kind][part.name].plugin
        by_distribution.setdefault(installed.distributions[plugin], []).append(f"{SINGULAR[part.kind]} {part.name}")
    ordered = sorted(by_distribution, key=lambda distribution: (distribution.partition(" ")[0] != GROUP, distribution))
    return {distribution: list(dict.fromkeys(by_distribution[distribution])) for distribution in ordered}


def part(kind: str, name: str, /, **options: Any) -> Part:
    """Return a part. Raise UserError for an unknown name, pydantic.ValidationError for wrong options."""
    return Part(kind, name, component(kind, name).Options(**options))


@dataclass(frozen=True)
class use:
    """Annotation of an option that names a component: `detector: Annotated[Part, use("detectors")]`."""

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
        # pydantic prepends this option's location to those of a ValidationError raised here.
        return part(self.kind, name, **options)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # A reference, since components can nest; `fsframework.recipe.reference.schema` adds the definitions.
        return {"$ref": f"#/$defs/{self.kind}"}
