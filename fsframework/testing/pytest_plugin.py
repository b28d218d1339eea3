"""`pytest --fsf-plugin fsf_x`: run all contract checks over the components of a plugin, one test for each check.

pytest loads this file wherever the framework is installed, so everything else is imported when it is asked for.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("fsframework")
    group.addoption(
        "--fsf-plugin",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="Check everything that an installed fsframework plugin brings. May be repeated.",
    )
    group.addoption(
        "--fsf-recipe",
        action="append",
        default=[],
        metavar="FILE",
        help="A recipe whose options and networks the checks take for the components that it names. May be repeated.",
    )


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks to what is collected."""
    if config.option.fsf_plugin:
        uses = _uses(config.option.fsf_recipe)
        for plugin in config.option.fsf_plugin:
            items.extend(_checks(session, plugin, uses))


class Contract(pytest.Item):
    """One check of one component."""

    def __init__(self, about: Any = None, check: Any = None, reason: str = "", **rest: Any) -> None:
        super().__init__(**rest)
        self.about, self.check, self.reason = about, check, reason

    def runtest(self) -> None:
        """Run the check, or skip it with the reason."""
        if self.reason:
            pytest.skip(self.reason)
        if getattr(self.about, "is_unfit", False):
            pytest.skip("it cannot be built: see allocates")
        try:
            self.check.run(self.about)
        except AssertionError:
            self.about.is_unfit = self.check.name == "allocates"
            raise

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The line that says what is wrong; the component's own traceback, where it raised something."""
        from fsframework.testing.contract import ContractError

        if not isinstance(excinfo.value, ContractError):
            return super().repr_failure(excinfo, style)
        cause = excinfo.value.__cause__
        if cause is None or not cause.__traceback__:
            return str(excinfo.value)
        return f"{excinfo.value}\n\n{pytest.ExceptionInfo.from_exception(cause).getrepr(style='short')}"

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The class's file and line."""
        try:
            return self.path, inspect.getsourcelines(self.about.cls)[1] - 1, self.name
        except (OSError, TypeError):
            return self.path, None, self.name


class Plugin(pytest.Collector):
    """A plugin, in the names of tests."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Nothing: `_checks` makes the items."""
        return []


def _checks(session: pytest.Session, plugin: str, uses: dict[tuple[str, str], Any]) -> Iterator[Contract]:
    from fsframework.core.registry import registry
    from fsframework.testing.checks import CLASS, missing_options
    from fsframework.testing.contract import checks, subject

    installed = registry()
    if plugin not in installed.distributions:
        known = ", ".join(sorted(installed.distributions))
        broken = next((problem for problem in installed.problems if problem.startswith(f"{plugin}: ")), None)
        raise pytest.UsageError(broken or f"--fsf-plugin {plugin}: no such plugin is installed; there are {known}")
    parent = Plugin.from_parent(session, name=plugin, path=session.path, nodeid=plugin)
    for kind, brought in installed.components.items():
        for name, (cls, owner) in sorted(brought.items()):
            if owner != plugin:
                continue
            options, networks = uses.get((kind, name), ({}, {}))
            about = subject(kind, cls, options, networks)
            missing = missing_options(cls, options)
            for check in checks(kind, cls):
                needs = bool(missing) and check not in CLASS[:3]
                reason = f"{name} needs {', '.join(missing)}; give a recipe that uses it: --fsf-recipe" if needs else ""
                file = Path(inspect.getsourcefile(cls) or plugin)
                yield Contract.from_parent(
                    parent, name=f"{kind}::{name}::{check.name}", path=file, about=about, check=check, reason=reason
                )


def _uses(recipes: list[str]) -> dict[tuple[str, str], Any]:
    """Options, and networks beside it, of every component that recipes name; the first use counts."""
    from fsframework.core.errors import UserError
    from fsframework.core.part import parts
    from fsframework.recipe.schema import Recipe

    found: dict[tuple[str, str], Any] = {}
    for file in recipes:
        try:
            recipe = Recipe.load(file)
        except UserError as error:
            raise pytest.UsageError(str(error)) from None
        networks = {name: part for name, part in recipe.networks if part is not None}
        for part in parts(recipe):
            options = {key: value for key, value in part.options if value is not None}
            found.setdefault((part.kind, part.name), (options, networks))
    return found
