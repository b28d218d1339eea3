"""The checks that every kind of component, or every kind of network, has to pass."""

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
CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".dylib")  # files that importing opens
META = torch.device("meta")
MIXED = 0.05  # how far mixed precision may be off on average, as a share of the largest value


def base(subject: Subject) -> None:
    """The class derives from its kind's base class."""
    wanted = KINDS[subject.kind]
    if not (isinstance(subject.cls, type) and issubclass(subject.cls, wanted)):
        bases = ", ".join(each.__name__ for each in subject.cls.__bases__)
        raise subject.broken(
            f"{SINGULAR[subject.kind]}: the class must derive from fsframework.{wanted.__name__}",
            f"it derives from {bases}",
        )


def name(subject: Subject) -> None:
    """It has a name of lower-case words joined by dashes."""
    found = getattr(subject.cls, "name", None)
    contract = 'a component must have a name of lower-case words joined by dashes, such as name = "my-loss"'
    if found is None:
        raise subject.broken(contract, "it has none")
    if not isinstance(found, str) or not NAME.fullmatch(found):
        raise subject.broken(contract, f"its name is {found!r}")


def docstring(subject: Subject) -> None:
    """It has a docstring of its own, which begins with a sentence."""
    first = (subject.cls.__dict__.get("__doc__") or "").strip().partition("\n")[0]
    if not first.endswith("."):
        seen = f"it begins with {first!r}" if first else "there is none"
        raise subject.broken(
            "the class must have a docstring whose first line is a sentence that says what it is, for "
            "`fsf plugins list`",
            seen,
        )


def options(subject: Subject) -> None:
    """Each option is described, and a run's recipe can hold them."""
    model = subject.cls.Options
    bare = [key for key, field in model.model_fields.items() if not field.description]
    if bare:
        raise subject.broken(
            'every option needs a description: Field(1.0, description="...")', f"{', '.join(bare)} has none"
        )
    if missing := missing_options(subject.cls, subject.given):
        raise subject.broken("the check must be given the required options", f"{', '.join(missing)} is missing")
    written = subject.options.model_dump(mode="json")
    try:
        again = model(**written)
    except (ValidationError, UserError) as error:
        raise subject.broken("options must be readable as a run's recipe writes them", str(error)) from error
    if again.model_dump(mode="json") != written:
        raise subject.broken("options must be the same when they are written and read", "they change")


def missing_options(cls: type[Any], given: Any) -> list[str]:
    """Required options that are not given."""
    return [key for key, field in cls.Options.model_fields.items() if field.is_required() and key not in given]


def allocates(subject: Subject) -> None:
    """The constructor only allocates: it reads no file, and everything is on the device that is asked for."""
    with META:
        subject.build()  # imports may read files, once
        with opened() as files:
            made = subject.build()
    if files:
        raise subject.broken("the constructor must read no file; read it in load()", f"it opens {files[0]}")
    if isinstance(made, nn.Module):
        placed = [*made.named_parameters(), *made.named_buffers()]
        wrong = [name for name, tensor in placed if not tensor.is_meta]
        if wrong:
            raise subject.broken(
                "everything must be allocated on the current device, so that `fsf check` needs no memory; make tensors "
                "with torch, and read files in load()",
                f"on the meta device {wrong[0]} is on {dict(placed)[wrong[0]].device}",
            )


_watched: list[list[str]] = []
_hooked = False


@contextmanager
def opened() -> Iterator[list[str]]:
    """Collects the names of files that are opened meanwhile, without those of code and of devices."""
    global _hooked
    if not _hooked:  # an audit hook cannot be taken away again
        sys.addaudithook(_note_open)
        _hooked = True
    found: list[str] = []
    _watched.append(found)
    try:
        yield found
    finally:
        _watched.remove(found)


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str):
        file = arguments[0]
        of_code = file.endswith(CODE) or file in sys.path or Path(file).parent.suffix == ".dist-info"
        if not of_code and not file.startswith(("/dev/", "/proc/", "/sys/")):
            _watched[-1].append(Path(file).name)


def seed(subject: Subject) -> None:
    """Two instances from one seed are equal, and one says the same twice."""
    one, other = subject.loaded(3), subject.loaded(3)
    for (key, value), again in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if not same(value, again, 0):
            raise subject.broken(
                "weights must follow from torch's seed (torch.manual_seed)", f"{key} differs between two instances"
            )
    if not all(map(same, subject.called(one), subject.called(one))):
        raise subject.broken(
            "forward must give the same for the same input and seed in eval mode", "two calls give different values"
        )
    if not all(map(same, subject.called(one), subject.called(other))):
        raise subject.broken("instances of one seed must give the same", "two of them give different values")
    if subject.kind != "losses" and not all(map(same, subject.called(one), subject.called(one, seed=2))):
        raise subject.broken(
            "forward must draw nothing at random in eval mode", "with another seed it gives different values"
        )


def state(subject: Subject) -> None:
    """What it has learned is in its state_dict, and goes through a checkpoint."""
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
            "an instance with another's state_dict must give the same; make tensors parameters or buffers "
            "(register_buffer), and layers attributes or a ModuleList",
            "it gives something else",
        )


def precision(subject: Subject) -> None:
    """It computes in mixed precision, as stages with `precision: bf16` do."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = subject.called(subject.component)
    for one, other in zip(subject.outputs, mixed, strict=True):
        found, most = _mean_apart(one, other), _largest(one)
        if not found <= MIXED * (1e-3 + most):
            raise subject.broken(
                f"in mixed precision (autocast to bfloat16) values must change by less than {MIXED:.0%} of the largest "
                "on average; compute sums and norms in .float()",
                f"they change by {found:.3g}, and the largest is {most:.3g}",
            )


def device(subject: Subject) -> None:
    """It can be moved to a GPU, where there is one."""
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
    """It runs on the meta device, where `fsf check` finds out whether networks fit together; at twice the size, too."""
    with META:
        made = subject.build()
    outputs = subject.called(made, device=META)
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in subject.outputs]:
        raise subject.broken(
            "on the meta device, where `fsf check` runs it, forward must return the same shapes",
            f"it returns {shapes(outputs)}, and {shapes(subject.outputs)} otherwise",
        )
    larger = type(subject)(subject.cls, subject.given, subject.networks)
    larger.size = 2 * subject.size
    try:
        with META:
            made = larger.build()
    except ContractError as error:
        if isinstance(error.__cause__, ValueError):  # it says that it does not come in this size
            return
        raise
    sides = [tensor.shape[-1] for tensor in larger.called(made, device=META)]
    if subject.kind != "attribute-encoders" and sides != [larger.size]:
        raise subject.broken(
            "the size must be what the constructor is given, or a ValueError say which sizes there are",
            f"at {larger.size} px the picture is {sides[0]} px wide",
        )


def untouched(subject: Subject) -> None:
    """It leaves its inputs as they are."""
    inputs = subject.inputs(tuple(range(3)), torch.device("cpu"))
    tensors = list(_tensors(inputs))
    before = [tensor.clone() for tensor in tensors]
    with torch.no_grad(), subject.running("forward"):
        subject.component(*inputs)
    if not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(tensors, before, strict=True)):
        raise subject.broken("forward must not change its inputs in place; clone() them", "one of them is changed")


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in inputs: in tuples, lists and the values that travel, not in networks."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value):
        for entry in fields(value):
            yield from _tensors(getattr(value, entry.name))


def batch_of_one(subject: Subject) -> None:
    """A batch of one gives the same row as a larger batch."""
    for one, all_rows in zip(subject.called(subject.component, (1,)), subject.outputs, strict=True):
        if not same(one, all_rows[1:2]):
            raise subject.broken(
                "a batch of one must give what the same row of a larger batch gives; take no means over the batch",
                f"they are {apart(one, all_rows[1:2])} apart",
            )


def order(subject: Subject) -> None:
    """Rows do not depend on each other's order."""
    turned = (2, 0, 1)
    for one, all_rows in zip(subject.called(subject.component, turned), subject.outputs, strict=True):
        if not same(one, all_rows[list(turned)]):
            raise subject.broken(
                "each row of the output must follow from the same row of the input alone",
                f"with the batch in another order, rows are {apart(one, all_rows[list(turned)])} apart",
            )


def traced(subject: Subject) -> None:
    """Where the class says `traceable`, torch.compile captures its forward in one graph."""
    if not getattr(subject.cls, "traceable", False):
        return
    torch.compiler.reset()
    try:
        outputs = subject.called(torch.compile(subject.component, backend="eager", fullgraph=True))
    except ContractError as error:
        raise subject.broken(
            "the class says traceable, so torch.compile must capture forward in one graph; take branches on values out "
            "of it, or leave traceable out",
            str(error).partition("; ")[2],
        ) from error.__cause__
    finally:
        torch.compiler.reset()
    if not all(map(same, outputs, subject.outputs)):
        raise subject.broken("the compiled forward must give the same", "it gives something else")


def same(one: Tensor, other: Tensor, tolerance: float = 1e-3) -> bool:
    """Equal shapes, and values within a share of the largest; NaN equals NaN."""
    return one.shape == other.shape and apart(one, other) <= tolerance * (1e-3 + _largest(other))


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference of two tensors of one shape; infinite where only one is finite."""
    a, b = one.detach().double(), other.detach().double()
    if one.shape != other.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    return float((a - b)[a.isfinite()].abs().max()) if bool(a.isfinite().any()) else 0.0


def _mean_apart(one: Tensor, other: Tensor) -> float:
    """Mean difference where `one` is finite; NaN, which no limit lets pass, where `other` is not."""
    known = one.isfinite()
    return float((one - other)[known].abs().double().mean()) if bool(known.any()) else 0.0


def _largest(values: Tensor) -> float:
    finite = values.detach().double()
    finite = finite[finite.isfinite()]
    return float(finite.abs().max()) if len(finite) else 0.0


def gradients(subject: Subject, outputs: Sequence[Tensor], inputs: Sequence[Tensor], what: str) -> list[Tensor | None]:
    """Gradients of the sum of squares of outputs; ContractError if they are cut off from everything."""
    total = torch.stack([output.double().square().sum() for output in outputs]).sum()
    if not total.requires_grad:
        raise subject.broken(
            f"gradients must pass from the output to {what}", "they do not: look for no_grad, detach, item or numpy"
        )
    found: Sequence[Tensor | None] = torch.autograd.grad(total, list(inputs), allow_unused=True)
    return list(found)


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
