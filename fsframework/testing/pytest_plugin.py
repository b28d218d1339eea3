"""`pytest --fsf-plugin fsf_x`: run all contract checks over the components of a plugin, one test for each check.

pytest loads this module in every project, so all other imports are lazy.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options --fsf-plugin and --fsf-recipe."""
    group = parser.getgroup("fsframework")
    group.addoption(
        "--fsf-plugin",
        action="append",
        default=[],
        metavar="PLUGIN",
        help="Check every component of an installed fsframework plugin. May be repeated.",
    )
    group.addoption(
        "--fsf-recipe",
        action="append",
        default=[],
        metavar="FILE",
        help="A recipe with options and networks for the checks of the components that it names. May be repeated.",
    )


@pytest.hookimpl(tryfirst=True)  # before -k and -m select
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Append the checks to the collected tests."""
    if config.option.fsf_plugin:
        uses = _options_from(config.option.fsf_recipe)
        for plugin in config.option.fsf_plugin:
            items.extend(_checks(session, plugin, uses))


class Contract(pytest.Item):
    """One check of one component."""

    def __init__(self, subject: Any = None, check: Any = None, reason: str = "", **rest: Any) -> None:
        super().__init__(**rest)
        self.subject, self.check, self.reason = subject, check, reason

    def runtest(self) -> None:
        """Run the check, or skip it with the reason."""
        if self.reason:
            pytest.skip(self.reason)
        if getattr(self.subject, "is_unfit", False):
            pytest.skip("the component cannot be built: see allocates")
        try:
            self.check.run(self.subject)
        except AssertionError:
            self.subject.is_unfit = self.check.name == "allocates"
            raise

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the error's line, and the component's traceback if it raised an error."""
        from fsframework.testing.contract import ContractError

        if not isinstance(excinfo.value, ContractError):
            return super().repr_failure(excinfo, style)
        cause = excinfo.value.__cause__
        if cause is None or not cause.__traceback__:
            return str(excinfo.value)
        return f"{excinfo.value}\n\n{pytest.ExceptionInfo.from_exception(cause).getrepr(style='short')}"

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the file and line of the class, and the check's name."""
        try:
            return self.path, inspect.getsourcelines(self.subject.cls)[1] - 1, self.name
        except (OSError, TypeError):
            return self.path, None, self.name


class Plugin(pytest.Collector):
    """A plugin, as the parent node of its checks."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Return an empty list, because `_checks` creates the items."""
        return []


def _checks(session: pytest.Session, plugin: str, uses: dict[tuple[str, str], Any]) -> Iterator[Contract]:
    from fsframework.core.registry import registry
    from fsframework.testing.checks import CLASS, missing_options
    from fsframework.testing.contract import checks
    from fsframework.testing.contract import subject as make_subject

    installed = registry()
    if plugin not in installed.distributions:
        names = ", ".join(sorted(installed.distributions))
        problem = next((problem for problem in installed.problems if problem.startswith(f"{plugin}: ")), None)
        raise pytest.UsageError(problem or f"--fsf-plugin {plugin}: no such plugin is installed; there are {names}")
    parent = Plugin.from_parent(session, name=plugin, path=session.path, nodeid=plugin)
    for kind, classes in installed.components.items():
        for name, (cls, owner) in sorted(classes.items()):
            if owner != plugin:
                continue
            options, networks = uses.get((kind, name), ({}, {}))
            subject = make_subject(kind, cls, options, networks)
            missing = missing_options(cls, options)
            for check in checks(kind, cls):
                needs = bool(missing) and check not in CLASS[:3]
                reason = f"{name} needs {', '.join(missing)}; give a recipe that uses it: --fsf-recipe" if needs else ""
                file = Path(inspect.getsourcefile(cls) or plugin)
                yield Contract.from_parent(
                    parent, name=f"{kind}::{name}::{check.name}", path=file, subject=subject, check=check, reason=reason
                )


def _options_from(recipes: list[str]) -> dict[tuple[str, str], Any]:
    """Return the options and companion networks of each component in the recipes; the first use counts."""
    from fsframework.core.errors import UserError
    from fsframework.core.part import parts
    from fsframework.recipe.schema import Recipe

    result: dict[tuple[str, str], Any] = {}
    for file in recipes:
        try:
            recipe = Recipe.load(file)
        except UserError as error:
            raise pytest.UsageError(str(error)) from None
        networks = {name: part for name, part in recipe.networks if part is not None}
        for part in parts(recipe):
            options = {key: value for key, value in part.options if value is not None}
            result.setdefault((part.kind, part.name), (options, networks))
    return result
