"""A component under test: how it is made, how it is called, and how what is wrong with it is said."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fsframework.core.errors import UserError
from fsframework.core.part import Part
from fsframework.core.registry import line_of, place_of
from fsframework.core.swapper import Swapper
from fsframework.data.samples import SIZE
from fsframework.testing.samples import SmallAttributes, SmallGenerator, SmallIdentity, ready

CPU = torch.device("cpu")
ROWS = (0, 1, 2)  # of the batch that most checks use


class ContractError(AssertionError):
    """A component does not keep its contract. One line: `name (file:line): what must hold; what was seen`."""


class Check(NamedTuple):
    """One check of a contract."""

    name: str
    run: Callable[[Any], None]  # takes the subject, raises ContractError


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
        self.size = SIZE

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

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """What forward takes, made of rows of the samples, on a device."""
        raise NotImplementedError

    def call(self, component: Any, rows: Sequence[int], device: torch.device) -> list[Tensor]:
        """What it makes of rows of the samples: tensors, a row for each, or one number."""
        found = component(*self.inputs(rows, device))
        return found if isinstance(found, list) else [found]

    def called(
        self,
        component: Any,
        rows: Sequence[int] = ROWS,
        device: torch.device = CPU,
        grad: bool = False,
        seed: int = 1,
    ) -> list[Tensor]:
        """`call` from one seed; ContractError if the component raises anything."""
        torch.manual_seed(seed)
        with torch.set_grad_enabled(grad), self.running(f"forward of a batch of {len(rows)}"):
            return self.call(component, rows, device)

    @cached_property
    def outputs(self) -> list[Tensor]:
        """What the component makes of all rows; other checks compare with it."""
        return self.called(self.component)

    def encoders(self) -> tuple[Any, Any]:
        """The identity and attribute encoders beside it, loaded; small ones where none were given."""
        return (
            self._beside("identity", SmallIdentity),
            self._beside("attributes", SmallAttributes, self.size),
        )

    def swapper(self) -> Swapper:
        """The networks beside it, loaded; small ones where none were given, and no refiner."""
        identity, attributes = self.encoders()
        sizes = (self.size, identity.dim, attributes.channels)
        generator = self._beside("generator", SmallGenerator, *sizes)
        refiner = self._beside("refiner", None, self.size) if "refiner" in self.networks else None
        return Swapper(identity, attributes, generator, refiner)

    def _beside(self, name: str, small: Any, *sizes: Any) -> Any:
        """A network beside it, made from a seed of its own."""
        named = self.networks.get(name)
        with torch.random.fork_rng(devices=[]), CPU:
            torch.manual_seed(2)
            if named is None:
                return ready(small(*sizes))
            try:
                return ready(named.build(*sizes))
            except Exception as error:  # it is not this component that is to blame
                said = f"it raises {type(error).__name__}: {_first_line(error)}"
                raise self.broken(f"the {name} beside it, {named.name}, must work; mend that first", said) from error

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
            raise self.broken(f"{what} must work", said, line_of(error, self.cls)) from error

    def broken(self, contract: str, seen: str, place: str | None = None) -> ContractError:
        """The error that says what must hold and what was seen, at a `file.py:7` or where the class begins."""
        text = f"{self.name} ({place or place_of(self.cls)}): {contract}; {seen}"
        return ContractError(re.sub(r"\s+", " ", text))


def shapes(tensors: Sequence[Tensor]) -> str:
    """Shapes in words: (2, 3, 64, 64) and (2, 1, 64, 64)."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors) or "nothing"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        entries = error.errors(include_url=False)
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in entries)
    return re.sub(r"\s+", " ", str(error).strip().partition("\n")[0]) or "(no message)"
