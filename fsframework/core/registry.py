"""The plugin registry: loads the entry points and holds their components and models."""

import inspect
import os
import re
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pluggy
from packaging.requirements import InvalidRequirement, Requirement

from fsframework.core import components as bases
from fsframework.core import hookspecs
from fsframework.core.components import Model as Model  # returned by `register_models`
from fsframework.core.errors import UserError, did_you_mean
from fsframework.core.renamed import ATTRIBUTES, COMPONENTS, NAMES, present_module

GROUP = "fsframework"  # entry point group
BLOCK = "FSF_BLOCK_PLUGINS"  # environment variable: plugins to skip, separated by commas

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
    """A component class and the plugin that registered it."""

    cls: type[bases.Component]
    plugin: str


@dataclass(frozen=True)
class Registry:
    """All installed components and models."""

    components: dict[str, dict[str, Registered]]  # kind -> name -> component
    models: dict[str, Model]  # by name
    distributions: dict[str, str]  # plugin -> "distribution version"
    problems: list[str]  # one line for each plugin that was skipped


@cache
def registry() -> Registry:
    """Load the plugins, once for each process, and return the registry. Plugins that fail are listed in `problems`."""
    blocked = {name.strip() for name in os.environ.get(BLOCK, "").split(",")}
    entries = [entry for entry in metadata.entry_points(group=GROUP) if entry.name not in blocked]
    # An editable install can list one distribution twice, which is no conflict.
    unique = {(entry.name, entry.value, entry.dist.name if entry.dist else ""): entry for entry in entries}
    times = Counter(name for name, _, _ in unique)
    problems = [
        f"{name}: {count} installed plugins have this name, none is used; uninstall all but one"
        for name, count in times.items()
        if count > 1
    ]
    registered: dict[str, dict[str, Registered]] = {kind: {} for kind in KINDS}
    models: dict[str, Model] = {}
    distributions = {}
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    for entry in sorted(unique.values(), key=_rank):
        if times[entry.name] > 1:
            continue
        try:
            classes_by_kind, plugin_models = _brought_by(manager, entry)
            _check_free(classes_by_kind, registered)
            if taken := models.keys() & plugin_models.keys():
                raise _Refused(f"the model {min(taken)} is already registered by another plugin; rename yours")
        except Exception as error:  # a plugin may raise anything, and the others still work
            problems.append(f"{entry.name}: this plugin is skipped: {_reason(entry, error)}")
            if manager.has_plugin(entry.name):
                manager.unregister(name=entry.name)
            continue
        models |= plugin_models
        for kind, classes in classes_by_kind.items():
            registered[kind].update({cls.name: Registered(cls, entry.name) for cls in classes})
        distributions[entry.name] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    return Registry(registered, models, distributions, problems)


def _rank(entry: metadata.EntryPoint) -> tuple[bool, str]:
    """Return a sort key: built-in plugins first, so that no other plugin takes their names, then by name."""
    return entry.dist is None or entry.dist.name != GROUP, entry.name


class _Refused(Exception):
    """A plugin that breaks the contract of the hooks. The message is as of `UserError`."""


def _brought_by(
    manager: pluggy.PluginManager, entry: metadata.EntryPoint
) -> tuple[dict[str, list[type[bases.Component]]], dict[str, Model]]:
    """Register one plugin and return its component classes by kind, and its models. Raise _Refused or its exception."""
    loaded = entry.load()
    if other := manager.get_name(loaded):
        raise _Refused(f"{place_of(loaded)}: the plugin {other} names the same module; remove one entry point")
    try:
        manager.register(loaded, name=entry.name)
    except pluggy.PluginValidationError as error:  # an argument that a hook does not have
        raise _Refused(
            f"{place_of(loaded)}: {' '.join(str(error).split())}; write it as plugins/README.md does"
        ) from None
    _check_hooks(manager, loaded)
    classes_by_kind: dict[str, list[type[bases.Component]]] = {}
    for kind, base in KINDS.items():
        hook = f"register_{kind.replace('-', '_')}"
        classes_by_kind[kind] = _call(manager, loaded, hook, f"{base.__name__} classes")
        for cls in classes_by_kind[kind]:
            _check_class(cls, base, loaded, hook)
    models: list[Model] = _call(manager, loaded, "register_models", "Model values")
    if wrong := [model for model in models if not isinstance(model, Model)]:
        raise _Refused(f"{place_of(loaded)}: register_models must return Model values, and returns {wrong[0]!r}")
    return classes_by_kind, {model.name: model for model in models}


def _call(manager: pluggy.PluginManager, loaded: Any, hook: str, what: str) -> list[Any]:
    """Call one hook of one plugin and return its list, empty without that hook. Raise _Refused for another type.

    Plugins are called one by one, so that results are attributed to plugins and one failure affects no other.
    """
    if hook not in _hooks_of(manager, loaded):
        return []
    others = manager.get_plugins() - {loaded}
    results: list[Any] = manager.subset_hook_caller(hook, others)() or [None]  # pluggy leaves None out
    if not isinstance(results[0], list | tuple):
        where = place_of(getattr(loaded, hook))
        raise _Refused(f"{where}: {hook} must return a list of {what}, and returns {results[0]!r}")
    return list(results[0])


def _hooks_of(manager: pluggy.PluginManager, loaded: Any) -> list[str]:
    """Return the names of the hooks that a registered plugin implements, misspelt ones included."""
    return [caller.name for caller in manager.get_hookcallers(loaded) or []]


def _check_hooks(manager: pluggy.PluginManager, loaded: Any) -> None:
    """Raise _Refused unless all hooks of a plugin exist and are marked."""
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    marked = _hooks_of(manager, loaded)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError:
        name = next(name for name in marked if name not in hooks)
        raise _Refused(f"{place_of(getattr(loaded, name))}: there is no hook {name}; {_meant(name, hooks)}") from None
    for name in hooks:
        if name not in marked and callable(getattr(loaded, name, None)):
            raise _Refused(f"{place_of(getattr(loaded, name))}: {name} is not marked; write @hookimpl above it")
    if not marked:
        raise _Refused(f"{place_of(loaded)}: it implements no hook; write one, with @hookimpl above it")


def _check_class(cls: Any, base: type[bases.Component], loaded: Any, hook: str) -> None:
    """Raise _Refused unless an item of a hook's list is a class of its kind with a name."""
    if not isinstance(cls, type):
        where = place_of(getattr(loaded, hook))
        raise _Refused(f"{where}: {hook} must return classes, not instances of them, and returns {cls!r}")
    if not issubclass(cls, base):
        raise _Refused(
            f"{place_of(cls)}: {cls.__name__} is not a {base.__name__}, which {hook} must return; derive it from "
            f"fsframework.{base.__name__}"
        )
    for kind in (kind.__name__ for kind in cls.__mro__ if kind.__name__ in ATTRIBUTES):
        for old in ATTRIBUTES[kind].keys() & vars(cls).keys():
            raise _Refused(f"{place_of(cls)}: {cls.__name__}.{old} is called {ATTRIBUTES[kind][old]} now; rename it")
    if not isinstance(getattr(cls, "name", None), str):
        raise _Refused(f'{place_of(cls)}: {cls.__name__} has no name; give it one, such as name = "my-component"')
    required = bases.Loss.Options if base is bases.Loss else bases.ComponentOptions
    if not (isinstance(cls.Options, type) and issubclass(cls.Options, required)):
        parent = "Loss.Options, which has weight and start" if base is bases.Loss else "ComponentOptions"
        raise _Refused(f"{place_of(cls)}: {cls.__name__}.Options must derive from {parent} (of fsframework)")


def _meant(name: str, hooks: list[str]) -> str:
    return did_you_mean(name, hooks, f"the hooks are {', '.join(hooks)}")


def place_of(thing: Any) -> str:
    """Return `file.py:7`, the first line of a class, a function or a module."""
    try:
        file, line = inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1]
        return f"{Path(file or '').name}:{max(line, 1)}"
    except (OSError, TypeError):
        return str(getattr(thing, "__name__", thing))


def line_of(error: BaseException, cls: type[Any]) -> str:
    """Return `file.py:33`, the last line of a class's file in an error's traceback, else the class's first line."""
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:
        return place_of(cls)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{Path(file or '').name}:{lines[-1]}" if lines else place_of(cls)


def _reason(entry: metadata.EntryPoint, error: Exception) -> str:
    """Return one line on a skipped plugin: location, problem, remedy."""
    if isinstance(error, _Refused):
        return str(error)
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    remedy = f"fix it, or skip it: {BLOCK}={entry.name}"
    if isinstance(error, ModuleNotFoundError):
        remedy = "install it, and list it in the plugin's dependencies"
        if new := present_module(str(error.name)):
            remedy = f"it is called {new} now; import what you need from fsframework"
        if error.name == entry.module:
            remedy = "the entry point names a module that is not packaged; fix the plugin's pyproject.toml"
    elif (match := re.match(r"cannot import name '(\w+)'", str(error))) and (name := match[1]) in NAMES:
        remedy = f"{name} is called {NAMES[name]} now; use that name"
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or entry.module).name}:{error.lineno}: SyntaxError: {error.msg}; {remedy}"
    root = entry.module.partition(".")[0]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if root in (Path(frame.filename).stem, *Path(frame.filename).parent.parts)
    ]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    return f"{where}{summary}; {remedy}"


def _check_free(
    classes_by_kind: dict[str, list[type[bases.Component]]], registered: dict[str, dict[str, Registered]]
) -> None:
    for kind, classes in classes_by_kind.items():
        for name, count in Counter(cls.name for cls in classes).items():
            if count == 1 and name not in registered[kind]:
                continue
            places = " and ".join(place_of(cls) for cls in classes if cls.name == name)
            if count > 1:
                raise _Refused(f"{places}: it registers {count} {kind} called {name}; give each its own name")
            raise _Refused(
                f"{places}: the {SINGULAR[kind]} {name} is already registered by the plugin "
                f"{registered[kind][name].plugin}; rename yours, or skip one by FSF_BLOCK_PLUGINS"
            )


def components(kind: str) -> dict[str, type[bases.Component]]:
    """Return the component classes of a kind, by name."""
    return {name: registered.cls for name, registered in sorted(registry().components[kind].items())}


def unknown(kind: str, name: str) -> str:
    """Return an error message for a name that no component of a kind has."""
    names = list(components(kind))
    hint = did_you_mean(name, names, f"installed: {', '.join(names) or 'none'}")
    if new := COMPONENTS.get(name):
        hint = f"it is called {new} now"
    broken = "".join(f"; {problem}" for problem in registry().problems)
    if blocked := os.environ.get(BLOCK):
        broken += f"; {BLOCK} skips {blocked}"
    return f"no {SINGULAR[kind]} is called {name}; {hint}{broken}"


def component(kind: str, name: str) -> type[bases.Component]:
    """Return a component class. Raise UserError if there is none of that name."""
    try:
        return registry().components[kind][name].cls
    except KeyError:
        raise UserError(unknown(kind, name)) from None


def unmet(requirement: str) -> str | None:
    """Return why a requirement, such as `fsf-x>=0.2`, is not met, and the remedy; None if it is met."""
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return f"{requirement} is not a requirement; write one as for pip, such as fsf-x>=0.2"
    try:
        version = metadata.version(parsed.name)
    except metadata.PackageNotFoundError:
        return f'{parsed.name} is not installed; pip install "{requirement}"'
    if parsed.specifier.contains(version, prereleases=True):
        return None
    return f'{parsed.name} {version} is installed, and {requirement} is needed; pip install "{requirement}"'
