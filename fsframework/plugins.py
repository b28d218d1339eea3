"""The plugin host: entry points to components, and `Part`, the type of an option that names a component."""

import difflib
import os
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pluggy
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fsframework import components as bases
from fsframework import hookspecs
from fsframework.errors import UserError

GROUP = "fsframework"  # of the entry points

KINDS: dict[str, type[bases.Component]] = {
    "detectors": bases.Detector,
    "identity-encoders": bases.IdentityEncoder,
    "attribute-encoders": bases.AttributeEncoder,
    "generators": bases.Generator,
    "refiners": bases.Refiner,
    "losses": bases.Loss,
    "datasets": bases.Dataset,
    "estimators": bases.Estimator,
    "benchmarks": bases.Benchmark,
}

SINGULAR = {kind: "loss" if kind == "losses" else kind.removesuffix("s").replace("-", " ") for kind in KINDS}


class Registered(NamedTuple):
    """A component class and the plugin that brought it."""

    cls: type[bases.Component]
    plugin: str


class Model(NamedTuple):
    """A trained method in one file, as `fsf export` writes it."""

    name: str
    file: Path
    sha256: str | None  # 64 hexadecimal digits; None: it is not known


@dataclass(frozen=True)
class Registry:
    """Everything that is installed."""

    components: dict[str, dict[str, Registered]]  # kind -> name -> component
    models: dict[str, Model]  # by name
    distributions: dict[str, str]  # plugin -> "distribution version"
    problems: list[str]  # one line for each plugin that cannot be used


@cache
def registry() -> Registry:
    """Load the plugins, once a process. A plugin that fails is left out and named in `problems`."""
    blocked = {name.strip() for name in os.environ.get("FSF_BLOCK_PLUGINS", "").split(",")}
    entries = [entry for entry in metadata.entry_points(group=GROUP) if entry.name not in blocked]
    # An editable install can list one distribution twice; that is not a clash.
    unique = {(entry.name, entry.value, entry.dist.name if entry.dist else ""): entry for entry in entries}
    times = Counter(name for name, _, _ in unique)
    problems = [
        f"{name}: {count} installed plugins have this name, none is used; uninstall all but one"
        for name, count in times.items()
        if count > 1
    ]
    found: dict[str, dict[str, Registered]] = {kind: {} for kind in KINDS}
    models: dict[str, Model] = {}
    distributions = {}
    for entry in unique.values():
        if times[entry.name] > 1:
            continue
        try:
            brought, shipped = _brought_by(entry)
            _check_free(brought, found)
            if taken := models.keys() & shipped.keys():
                raise ValueError(f"the model {min(taken)} is already brought by another plugin")
        except Exception as error:  # a plugin may fail in any way; the others still work
            problems.append(f"{entry.name}: this plugin is left out: {type(error).__name__}: {error}".splitlines()[0])
            continue
        models |= shipped
        for kind, classes in brought.items():
            found[kind].update({cls.name: Registered(cls, entry.name) for cls in classes})
        distributions[entry.name] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    return Registry(found, models, distributions, problems)


def _brought_by(entry: metadata.EntryPoint) -> tuple[dict[str, list[type[bases.Component]]], dict[str, Model]]:
    """Import one plugin and ask all its hooks. Raises whatever the plugin raises, or TypeError with the reason."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()  # a hook that does not exist
    brought: dict[str, list[type[bases.Component]]] = {}
    for kind, base in KINDS.items():
        answers = getattr(manager.hook, f"register_{kind.replace('-', '_')}")()
        brought[kind] = [cls for answer in answers for cls in answer]
        for cls in brought[kind]:
            if not (isinstance(cls, type) and issubclass(cls, base)):
                raise TypeError(f"register_{kind.replace('-', '_')} must return {base.__name__} classes, got {cls!r}")
            if not isinstance(getattr(cls, "name", None), str):
                raise TypeError(f"{cls.__name__} has no name")
    models = [model for answer in manager.hook.register_models() for model in answer]
    if wrong := [model for model in models if not isinstance(model, Model)]:
        raise TypeError(f"register_models must return Model values, got {wrong[0]!r}")
    return brought, {model.name: model for model in models}


def _check_free(brought: dict[str, list[type[bases.Component]]], found: dict[str, dict[str, Registered]]) -> None:
    for kind, classes in brought.items():
        for name, count in Counter(cls.name for cls in classes).items():
            if count > 1:
                raise ValueError(f"it brings {count} {kind} called {name}")
            if name in found[kind]:
                raise ValueError(
                    f"the {SINGULAR[kind]} {name} is already brought by the plugin {found[kind][name].plugin}"
                )


def components(kind: str) -> dict[str, type[bases.Component]]:
    """The component classes of a kind, by name."""
    return {name: registered.cls for name, registered in sorted(registry().components[kind].items())}


def unknown(kind: str, name: str) -> str:
    """What to say of a name that no component of a kind has."""
    names = list(components(kind))
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"installed: {', '.join(names) or 'none'}"
    broken = "".join(f"; {problem}" for problem in registry().problems)
    return f"no {SINGULAR[kind]} is called {name}; {hint}{broken}"


def component(kind: str, name: str) -> type[bases.Component]:
    """One component class. Raises UserError, with what to do, if there is none of that name."""
    try:
        return registry().components[kind][name].cls
    except KeyError:
        raise UserError(unknown(kind, name)) from None


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
        # `fsframework.reference.schema` adds the definitions; a reference, because components can nest without end.
        return {"$ref": f"#/$defs/{self.kind}"}
