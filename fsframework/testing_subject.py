"""A component under test: how it is made, how it is called, and how what is wrong with it is said."""

import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fsframework.components import ComponentOptions, Swapper
from fsframework.errors import UserError
from fsframework.plugins import Part
from fsframework.testing_samples import SIZE, SmallAttributes, SmallGenerator, SmallIdentity, ready

CPU = torch.device("cpu")
ROWS = (0, 1, 2)  # of the batch that most checks use


class ContractError(AssertionError):
    """A component does not keep its contract. One line: `name (file:line): what must hold; what was seen`."""


class Check(NamedTuple):
    """One check of a contract."""

    name: str
    run: Callable[[Any], None]  # takes the subject, raises ContractError


class Where(NamedTuple):
    """Where inputs lie, and how precise they are."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32


class Subject:
    """A component class with the options that it is checked with; each kind derives from this.

    Parameters
    ----------
    cls:
        The class.
    options:
        Its options; the defaults otherwise.
    networks:
        What stands beside it, by the keys of a recipe's `networks`: identity, attributes, generator, refiner. Small
        networks take the place of those that are not given.
    """

    kind: ClassVar[str]

    def __init__(self, cls: type[Any], options: Mapping[str, Any], networks: Mapping[str, Part]) -> None:
        self.cls = cls
        self.given = dict(options)
        self.networks = dict(networks)

    @property
    def name(self) -> str:
        """The component's, or its class's if it has none."""
        name = getattr(self.cls, "name", None)
        return name if isinstance(name, str) else self.cls.__name__

    @cached_property
    def options(self) -> Any:
        """The options, checked. Raises ContractError if they are no good."""
        try:
            return self.cls.Options(**self.given)
        except (ValidationError, UserError) as error:
            raise self.broken("options must make a component", _first_line(error)) from error

    def arguments(self) -> tuple[Any, ...]:
        """What the constructor takes after the options."""
        return ()

    def build(self, seed: int = 0) -> Any:
        """A component, allocated on the current device with random numbers from a seed, in eval mode, not loaded."""
        torch.manual_seed(seed)
        with self.running(f"{self.cls.__name__}({', '.join(['options', *self.signature])})"):
            made = self.cls(self.options, *self.arguments())
        if getattr(made, "options", None) is not self.options:
            raise self.broken(
                "the constructor must keep its options as self.options", "it does not; begin with super().__init__(...)"
            )
        return made.eval() if isinstance(made, nn.Module) else made

    signature: ClassVar[tuple[str, ...]] = ()  # names of `arguments`

    def loaded(self, seed: int = 0) -> Any:
        """A new component with its files read."""
        made = self.build(seed)
        with self.running("load()"):
            made.load()
        return made

    @cached_property
    def component(self) -> Any:
        """One that all checks may use which do not change it."""
        return self.loaded()

    def call(self, component: Any, rows: Sequence[int], where: Where) -> list[Tensor]:
        """What it makes of rows of the samples: tensors, a row for each, or one number."""
        raise NotImplementedError

    def called(
        self,
        component: Any,
        rows: Sequence[int] = ROWS,
        device: torch.device = CPU,
        dtype: torch.dtype = torch.float32,
        grad: bool = False,
    ) -> list[Tensor]:
        """`call` from one seed; ContractError if the component raises anything."""
        torch.manual_seed(1)
        with torch.set_grad_enabled(grad), self.running(f"forward of a batch of {len(rows)}"):
            return self.call(component, rows, Where(device, dtype))

    @cached_property
    def outputs(self) -> list[Tensor]:
        """What the component makes of all rows; other checks compare with it."""
        return self.called(self.component)

    def encoders(self) -> tuple[Any, Any]:
        """The identity and attribute encoders beside it, loaded; small ones where none were given."""
        with torch.random.fork_rng(devices=[]), CPU:
            torch.manual_seed(2)
            identity, attributes = self.networks.get("identity"), self.networks.get("attributes")
            made = (
                SmallIdentity() if identity is None else identity.build(),
                SmallAttributes(SIZE) if attributes is None else attributes.build(SIZE),
            )
            return ready(made[0]), ready(made[1])

    def swapper(self) -> Swapper:
        """The networks beside it, loaded; small ones where none were given, and no refiner."""
        identity, attributes = self.encoders()
        sizes = (SIZE, identity.dim, attributes.channels)
        with torch.random.fork_rng(devices=[]), CPU:
            torch.manual_seed(3)
            painter, after = self.networks.get("generator"), self.networks.get("refiner")
            generator = ready(SmallGenerator(*sizes) if painter is None else painter.build(*sizes))
            refiner = None if after is None else ready(after.build(SIZE))
        return Swapper(identity, attributes, generator, refiner)

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Turn what a component raises into a ContractError that says during what, and at which line of its file."""
        try:
            yield
        except ContractError:
            raise
        except NotImplementedError as error:
            raise self.broken(f"{what} must work", f"the class {self.cls.__name__} does not implement it") from error
        except Exception as error:  # a component may fail in any way
            said = f"it raises {type(error).__name__}: {_first_line(error)}"
            raise self.broken(f"{what} must work", said, _line_in(error, self.cls)) from error

    def broken(self, contract: str, seen: str, line: int | None = None) -> ContractError:
        """The error that says what must hold and what was seen."""
        return ContractError(re.sub(r"\s+", " ", f"{self.name} ({place(self.cls, line)}): {contract}; {seen}"))


def place(cls: type[Any], line: int | None = None) -> str:
    """Where a class stands, `file.py:7`, or a line of that file; its module and name where that cannot be told."""
    try:
        file = Path(inspect.getsourcefile(cls) or "")
        return f"{file.name}:{line or inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return f"{cls.__module__}.{cls.__name__}"


def shapes(tensors: Sequence[Tensor]) -> str:
    """Shapes in words: (2, 3, 64, 64) and (2, 1, 64, 64)."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors) or "nothing"


def options_of(cls: type[Any]) -> type[ComponentOptions]:
    """The inner class of options. Raises ContractError if it is no pydantic class of ours."""
    options = getattr(cls, "Options", None)
    if not (isinstance(options, type) and issubclass(options, ComponentOptions)):
        raise ContractError(
            f"{cls.__name__} ({place(cls)}): Options must derive from ComponentOptions, or from the base class's "
            f"Options; it is {options!r}"
        )
    return options


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        entries = error.errors(include_url=False)
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in entries)
    return re.sub(r"\s+", " ", str(error).strip().partition("\n")[0]) or "(no message)"


def _line_in(error: Exception, cls: type[Any]) -> int | None:
    """The last line of the class's file on the way to an error."""
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:
        return None
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
