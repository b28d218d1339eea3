"""Checks that apply to every kind of component, or to every kind of network."""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fsframework.core.errors import UserError
from fsframework.core.registry import KINDS, SINGULAR
from fsframework.testing.subject import Check, ContractError, Subject, shapes
from fsframework.utils.weights import fill, load_state, save_state

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".dylib")  # files that imports open
META = torch.device("meta")
MIXED = 0.05  # mean error allowed in mixed precision, relative to the largest value


def base(subject: Subject) -> None:
    """Check that the class derives from its kind's base class."""
    expected = KINDS[subject.kind]
    if not (isinstance(subject.cls, type) and issubclass(subject.cls, expected)):
        bases = ", ".join(parent.__name__ for parent in subject.cls.__bases__)
        raise subject.broken(
            f"{SINGULAR[subject.kind]}: the class must derive from fsframework.{expected.__name__}",
            f"it derives from {bases}",
        )


def name(subject: Subject) -> None:
    """Check that the class has a name of lower-case words joined by dashes."""
    value = getattr(subject.cls, "name", None)
    contract = 'a component must have a name of lower-case words joined by dashes, such as name = "my-loss"'
    if value is None:
        raise subject.broken(contract, "it has none")
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise subject.broken(contract, f"its name is {value!r}")


def docstring(subject: Subject) -> None:
    """Check that the class has a docstring of its own, which begins with a sentence."""
    first = (subject.cls.__dict__.get("__doc__") or "").strip().partition("\n")[0]
    if not first.endswith("."):
        actual = f"it begins with {first!r}" if first else "there is none"
        raise subject.broken(
            "the class must have a docstring whose first line is a sentence that describes it, for `fsf plugins list`",
            actual,
        )


def options(subject: Subject) -> None:
    """Check that each option has a description and survives a round trip through a run's recipe."""
    model = subject.cls.Options
    bare = [key for key, field in model.model_fields.items() if not field.description]
    if bare:
        raise subject.broken(
            'every option needs a description: Field(1.0, description="...")', f"{', '.join(bare)} has none"
        )
    if missing := missing_options(subject.cls, subject.given):
        raise subject.broken("the check needs the required options", f"{', '.join(missing)} is missing")
    written = subject.options.model_dump(mode="json")
    try:
        again = model(**written)
    except (ValidationError, UserError) as error:
        raise subject.broken("options must be readable from a run's recipe", str(error)) from error
    if again.model_dump(mode="json") != written:
        raise subject.broken("options must not change in a round trip through a recipe", "they change")


def missing_options(cls: type[Any], given: Any) -> list[str]:
    """Return the names of required options that are not given."""
    return [key for key, field in cls.Options.model_fields.items() if field.is_required() and key not in given]


def allocates(subject: Subject) -> None:
    """Check that the constructor opens no file and allocates every tensor on the current device."""
    with META:
        subject.build()  # the first construction may import modules, which opens files
        with opened() as files:
            component = subject.build()
    if files:
        raise subject.broken("the constructor must read no file; read it in load()", f"it opens {files[0]}")
    if isinstance(component, nn.Module):
        tensors = [*component.named_parameters(), *component.named_buffers()]
        wrong = [name for name, tensor in tensors if not tensor.is_meta]
        if wrong:
            raise subject.broken(
                "everything must be allocated on the current device, so that `fsf check` needs no memory; make tensors "
                "with torch, and read files in load()",
                f"on the meta device {wrong[0]} is on {dict(tensors)[wrong[0]].device}",
            )


_watched: list[list[str]] = []
_hooked = False


@contextmanager
def opened() -> Iterator[list[str]]:
    """Yield a list that collects the names of files opened in the block, except code and devices."""
    global _hooked
    if not _hooked:  # an audit hook cannot be removed
        sys.addaudithook(_note_open)
        _hooked = True
    paths: list[str] = []
    _watched.append(paths)
    try:
        yield paths
    finally:
        _watched.remove(paths)


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str):
        file = arguments[0]
        of_code = file.endswith(CODE) or file in sys.path or Path(file).parent.suffix == ".dist-info"
        if not of_code and not file.startswith(("/dev/", "/proc/", "/sys/")):
            _watched[-1].append(Path(file).name)


def seed(subject: Subject) -> None:
    """Check that instances of one seed are equal and forward is deterministic in eval mode."""
    one, other = subject.loaded(3), subject.loaded(3)
    for (key, value), again in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if not same(value, again, 0):
            raise subject.broken(
                "weights must follow from torch's seed (torch.manual_seed)", f"{key} differs between two instances"
            )
    if not all(map(same, subject.called(one), subject.called(one))):
        raise subject.broken(
            "forward must return equal values for equal input and seed in eval mode",
            "two calls return different values",
        )
    if not all(map(same, subject.called(one), subject.called(other))):
        raise subject.broken("instances of one seed must return equal values", "two of them return different values")
    if subject.kind != "losses" and not all(map(same, subject.called(one), subject.called(one, seed=2))):
        raise subject.broken(
            "forward must be deterministic in eval mode", "with another seed it returns different values"
        )


def state(subject: Subject) -> None:
    """Check that the state_dict holds all learned state, and survives a checkpoint."""
    one, other = subject.loaded(3), subject.loaded(4)
    before = subject.called(one)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        with subject.running("saving its state_dict()"):
            save_state(file, one.state_dict())
        with subject.running("loading its state_dict()"):
            fill(other, load_state(file), "another instance")
    if not all(map(same, before, subject.called(other))):
        raise subject.broken(
            "an instance with another's state_dict must return equal values; make tensors parameters or buffers "
            "(register_buffer), and layers attributes or a ModuleList",
            "it returns different values",
        )


def precision(subject: Subject) -> None:
    """Check that forward works in mixed precision, as in stages with `precision: bf16`."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = subject.called(subject.component)
    for one, other in zip(subject.outputs, mixed, strict=True):
        error, largest = _mean_apart(one, other), _largest(one)
        if not error <= MIXED * (1e-3 + largest):
            raise subject.broken(
                f"in mixed precision (autocast to bfloat16) values must change by less than {MIXED:.0%} of the largest "
                "on average; compute sums and norms in .float()",
                f"they change by {error:.3g}, and the largest is {largest:.3g}",
            )


def device(subject: Subject) -> None:
    """Check that outputs on a GPU, if there is one, match those on the CPU."""
    if not torch.cuda.is_available():
        return
    gpu = torch.device("cuda")
    moved = subject.called(subject.loaded().to(gpu), device=gpu)
    for one, other in zip(subject.outputs, moved, strict=True):
        if other.device.type != "cuda":
            raise subject.broken("forward must return tensors on the device of its input", f"one is on {other.device}")
        if not same(one, other.cpu(), 2e-2):
            raise subject.broken("GPU and CPU must agree to 2 %", f"they are {apart(one, other.cpu())} apart")


def meta(subject: Subject) -> None:
    """Check that forward runs on the meta device, where `fsf check` compares shapes, also at twice the size."""
    with META:
        component = subject.build()
    outputs = subject.called(component, device=META)
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in subject.outputs]:
        raise subject.broken(
            "on the meta device, where `fsf check` runs it, forward must return the same shapes",
            f"it returns {shapes(outputs)}, and {shapes(subject.outputs)} otherwise",
        )
    larger = type(subject)(subject.cls, subject.given, subject.networks)
    larger.size = 2 * subject.size
    try:
        with META:
            component = larger.build()
    except ContractError as error:
        if isinstance(error.__cause__, ValueError):  # the component does not support this size
            return
        raise
    sides = [tensor.shape[-1] for tensor in larger.called(component, device=META)]
    if subject.kind != "attribute-encoders" and sides != [larger.size]:
        raise subject.broken(
            "the output must have the constructor's size, or the constructor must raise a ValueError with the "
            "supported sizes",
            f"at {larger.size} px the image is {sides[0]} px wide",
        )


def untouched(subject: Subject) -> None:
    """Check that forward does not modify its inputs in place."""
    inputs = subject.inputs(tuple(range(3)), torch.device("cpu"))
    tensors = list(_tensors(inputs))
    before = [tensor.clone() for tensor in tensors]
    with torch.no_grad(), subject.running("forward"):
        subject.component(*inputs)
    if not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(tensors, before, strict=True)):
        raise subject.broken("forward must not change its inputs in place; clone() them", "one of them is changed")


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of inputs: in tuples, lists and dataclasses, not in networks."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value):
        for entry in fields(value):
            yield from _tensors(getattr(value, entry.name))


def batch_of_one(subject: Subject) -> None:
    """Check that a batch of one returns the same row as a larger batch."""
    for one, all_rows in zip(subject.called(subject.component, (1,)), subject.outputs, strict=True):
        if not same(one, all_rows[1:2]):
            raise subject.broken(
                "a batch of one must return the same row as a larger batch; take no means over the batch",
                f"they are {apart(one, all_rows[1:2])} apart",
            )


def order(subject: Subject) -> None:
    """Check that rows of a batch are independent of its order."""
    permutation = (2, 0, 1)
    for one, all_rows in zip(subject.called(subject.component, permutation), subject.outputs, strict=True):
        if not same(one, all_rows[list(permutation)]):
            raise subject.broken(
                "each row of the output must depend on the same row of the input alone",
                f"with the batch in another order, rows are {apart(one, all_rows[list(permutation)])} apart",
            )


def traced(subject: Subject) -> None:
    """Check that the forward of a class with `traceable` compiles to one graph by torch.compile."""
    if not getattr(subject.cls, "traceable", False):
        return
    torch.compiler.reset()
    try:
        outputs = subject.called(torch.compile(subject.component, backend="eager", fullgraph=True))
    except ContractError as error:
        raise subject.broken(
            "the class declares traceable, so torch.compile must capture forward in one graph; remove branches on "
            "values from it, or remove traceable",
            str(error).partition("; ")[2],
        ) from error.__cause__
    finally:
        torch.compiler.reset()
    if not all(map(same, outputs, subject.outputs)):
        raise subject.broken("the compiled forward must return equal values", "it returns different values")


def same(one: Tensor, other: Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether shapes are equal and values agree, relative to the largest value; NaN equals NaN."""
    return one.shape == other.shape and apart(one, other) <= tolerance * (1e-3 + _largest(other))


def apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference of two tensors, infinite if shapes or finite positions differ."""
    a, b = one.detach().double(), other.detach().double()
    if one.shape != other.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    return float((a - b)[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0


def _mean_apart(one: Tensor, other: Tensor) -> float:
    """Return the mean difference where `one` is finite; NaN, which fails every limit, if `other` is not."""
    finite = one.isfinite()
    return float((one - other)[finite].abs().double().mean()) if bool(finite.any()) else 0.0


def _largest(values: Tensor) -> float:
    finite = values.detach().double()
    finite = finite[finite.isfinite()]
    return float(finite.abs().max()) if len(finite) else 0.0


def gradients(subject: Subject, outputs: Sequence[Tensor], inputs: Sequence[Tensor], what: str) -> list[Tensor | None]:
    """Return the gradients of the outputs' sum of squares with respect to the inputs, None where there is none.

    Raises
    ------
    ContractError
        No output requires a gradient; `what` names the inputs.
    """
    total = torch.stack([output.double().square().sum() for output in outputs]).sum()
    if not total.requires_grad:
        raise subject.broken(
            f"gradients must pass from the output to {what}", "they do not: look for no_grad, detach, item or numpy"
        )
    result: Sequence[Tensor | None] = torch.autograd.grad(total, list(inputs), allow_unused=True)
    return list(result)


CLASS = (Check("base", base), Check("name", name), Check("docstring", docstring), Check("options", options))
COMPONENT = (*CLASS, Check("allocates", allocates))
NETWORK = (
    Check("seed", seed),
    Check("state", state),
    Check("precision", precision),
    Check("device", device),
    Check("untouched", untouched),
)
ROWWISE = (Check("batch-of-one", batch_of_one), Check("order", order))
TRACED = Check("traced", traced)
META_RUN = Check("meta", meta)
