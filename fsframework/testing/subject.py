"""A component under test: its construction, its calls, and the errors about it."""

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
ROWS = (0, 1, 2)  # rows of the samples in the batch of most checks


class ContractError(AssertionError):
    """A broken contract, in one line: `name (file:line): the contract; the observed behaviour`."""


class Check(NamedTuple):
    """One check of a contract."""

    name: str
    run: Callable[[Any], None]  # from the subject; raises ContractError


class Subject:
    """A component class with the options for its checks; each kind has a subclass.

    Parameters
    ----------
    cls:
        The class.
    options:
        Its options; the defaults otherwise.
    networks:
        Companion networks, by the keys of a recipe's `networks`: identity, attributes, generator, refiner. Small
        networks replace those that are missing.
    """

    kind: ClassVar[str]

    def __init__(self, cls: type[Any], options: Mapping[str, Any], networks: Mapping[str, Part]) -> None:
        self.cls = cls
        self.given = dict(options)
        self.networks = dict(networks)
        self.size = SIZE

    @property
    def name(self) -> str:
        """Return the component's name, or its class's if it has none."""
        name = getattr(self.cls, "name", None)
        return name if isinstance(name, str) else self.cls.__name__

    @cached_property
    def options(self) -> Any:
        """Return the validated options. Raise ContractError if they are invalid."""
        try:
            return self.cls.Options(**self.given)
        except (ValidationError, UserError) as error:
            raise self.broken("options must be valid", _first_line(error)) from error

    def arguments(self) -> tuple[Any, ...]:
        """Return the constructor's arguments after the options."""
        return ()

    def build(self, seed: int = 0) -> Any:
        """Return a component in eval mode, on the current device, with weights from a seed, without load()."""
        torch.manual_seed(seed)
        with self.running(f"{self.cls.__name__}({', '.join(['options', *self.signature])})"):
            component = self.cls(self.options, *self.arguments())
        if getattr(component, "options", None) is not self.options:
            raise self.broken(
                "the constructor must store its options as self.options",
                "it does not; begin with super().__init__(...)",
            )
        return component.eval() if isinstance(component, nn.Module) else component

    signature: ClassVar[tuple[str, ...]] = ()  # names of `arguments`

    def loaded(self, seed: int = 0) -> Any:
        """Return a new component after load()."""
        component = self.build(seed)
        with self.running("load()"):
            component.load()
        return component

    @cached_property
    def component(self) -> Any:
        """Return a component shared by all checks that do not change it."""
        return self.loaded()

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Return forward's arguments for rows of the samples, on a device."""
        raise NotImplementedError

    def call(self, component: Any, rows: Sequence[int], device: torch.device) -> list[Tensor]:
        """Return the output for rows of the samples: tensors with a row for each, or one scalar."""
        output = component(*self.inputs(rows, device))
        return output if isinstance(output, list) else [output]

    def called(
        self,
        component: Any,
        rows: Sequence[int] = ROWS,
        device: torch.device = CPU,
        grad: bool = False,
        seed: int = 1,
    ) -> list[Tensor]:
        """Return the output of `call` with a fixed seed. Raise ContractError if the component raises any error."""
        torch.manual_seed(seed)
        with torch.set_grad_enabled(grad), self.running(f"forward of a batch of {len(rows)}"):
            return self.call(component, rows, device)

    @cached_property
    def outputs(self) -> list[Tensor]:
        """Return the component's output for all rows, the reference of other checks."""
        return self.called(self.component)

    def encoders(self) -> tuple[Any, Any]:
        """Return the companion identity and attribute encoders, loaded; small ones if none were given."""
        return (
            self._beside("identity", SmallIdentity),
            self._beside("attributes", SmallAttributes, self.size),
        )

    def swapper(self) -> Swapper:
        """Return the companion networks as a swapper, loaded; small ones if none were given, and no refiner."""
        identity, attributes = self.encoders()
        sizes = (self.size, identity.dim, attributes.channels)
        generator = self._beside("generator", SmallGenerator, *sizes)
        refiner = self._beside("refiner", None, self.size) if "refiner" in self.networks else None
        return Swapper(identity, attributes, generator, refiner)

    def _beside(self, name: str, small: Any, *sizes: Any) -> Any:
        """Return a companion network with weights from a seed of its own."""
        configured = self.networks.get(name)
        with torch.random.fork_rng(devices=[]), CPU:
            torch.manual_seed(2)
            if configured is None:
                return ready(small(*sizes))
            try:
                return ready(configured.build(*sizes))
            except Exception as error:  # the error is the companion's, not this component's
                reason = f"it raises {type(error).__name__}: {_first_line(error)}"
                raise self.broken(
                    f"the {name} beside it, {configured.name}, must work; fix it first", reason
                ) from error

    @contextmanager
    def running(self, action: str) -> Iterator[None]:
        """Convert an error of the component into a ContractError with the action and the line of its file."""
        try:
            yield
        except ContractError:
            raise
        except NotImplementedError as error:
            raise self.broken(f"{action} must work", f"the class {self.cls.__name__} does not implement it") from error
        except Exception as error:  # a component may fail in any way
            reason = f"it raises {type(error).__name__}: {_first_line(error)}"
            raise self.broken(f"{action} must work", reason, line_of(error, self.cls)) from error

    def broken(self, contract: str, actual: str, location: str | None = None) -> ContractError:
        """Return an error with contract, observation and location: `file.py:7`, by default the class's."""
        text = f"{self.name} ({location or place_of(self.cls)}): {contract}; {actual}"
        return ContractError(re.sub(r"\s+", " ", text))


def shapes(tensors: Sequence[Tensor]) -> str:
    """Return shapes as text: (2, 3, 64, 64) and (2, 1, 64, 64)."""
    return " and ".join(str(tuple(tensor.shape)) for tensor in tensors) or "nothing"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        entries = error.errors(include_url=False)
        return "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in entries)
    return re.sub(r"\s+", " ", str(error).strip().partition("\n")[0]) or "(no message)"
