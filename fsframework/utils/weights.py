"""Read, verify and write weights. Nothing that could run code is unpickled.

Weights are safetensors, or torch files (.pt, .pth) that hold tensors alone. A file is read once and the bytes that were
verified are the bytes that are parsed, so it cannot be exchanged in between.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fsframework.core.errors import UserError
from fsframework.utils.files import replacing

Value = TypeVar("Value")
AGAIN = "it is incomplete or of another kind; get it again"


def verify(path: str | Path, sha256: str) -> None:
    """Check the SHA-256 (64 hexadecimal digits) of a file. Raises UserError if it differs or cannot be read."""
    read(path, sha256)


def read(path: str | Path, sha256: str | None = None) -> bytes:
    """The bytes of a file, verified if a SHA-256 (64 hexadecimal digits) is given.

    Raises
    ------
    UserError
        The file cannot be read, or has another hash; the line names both hashes.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256.lower():
            raise UserError(f"{path}: the SHA-256 should be {sha256} and is {found}; get the file again")
    return data


def load_state(path: str | Path, sha256: str | None = None, below: str | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt or .pth file by name, on the CPU.

    Parameters
    ----------
    path:
        The file.
    sha256:
        The hash that it must have, 64 hexadecimal digits.
    below:
        The key under which some trainings keep the tensors in torch files, beside other things.

    Raises
    ------
    UserError
        The file cannot be read, has another SHA-256, is cut short, or holds anything but named tensors.
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".pt", ".pth"):
        raise UserError(f"{path}: weights end in .safetensors, .pt or .pth; convert the file")
    data = read(path, sha256)
    return _parse_safetensors(path, data) if suffix == ".safetensors" else _parse_torch(path, data, below)


def fill(module: nn.Module, state: Mapping[str, Tensor], wrong: str) -> None:
    """Put tensors by name into a module that has just these. Raises UserError, `wrong` and the reason, otherwise."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{wrong}: {str(error).splitlines()[-1].strip()}") from error


def below(prefix: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """What stands under `prefix.` in a state, by the names that follow it."""
    return {key.removeprefix(f"{prefix}."): value for key, value in state.items() if key.startswith(f"{prefix}.")}


def fill_published(module: nn.Module, state: Mapping[str, Tensor], wrong: str) -> None:
    """Put somebody else's tensors by name into a module; names that it lacks are left out.

    Raises UserError, `wrong` and the reason, if one that it has is missing or has another shape. Batch norms' counters
    may be missing, and every name may begin with `module.`, as trainings on several GPUs leave it.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, value in own.items():
        if name not in state or state[name].shape != value.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise UserError(f"{wrong}: it holds {found} as {name}, not {tuple(value.shape)}")
    module.load_state_dict({name: state[name] for name in own}, strict=False)


def fold_norms(module: nn.Module) -> None:
    """Make every batch norm that follows a convolution in a Sequential part of that convolution, for inference."""
    for layers in [each for each in module.modules() if isinstance(each, nn.Sequential)]:
        for (_, before), (name, layer) in itertools.pairwise(list(layers.named_children())):
            if isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(before, layer)
                before.weight, before.bias = fused.weight, fused.bias
                setattr(layers, name, nn.Identity())
    module.requires_grad_(False)


def digest(module: nn.Module) -> str | None:
    """SHA-256 of a module's tensors in single precision, by name, as hexadecimal digits; None where it has none.

    It names the weights that a figure belongs to, whatever file they came from. A module that holds them elsewhere than
    in torch says their digest itself, as `weights_sha256`.
    """
    if (known := getattr(module, "weights_sha256", None)) is not None:
        return str(known)
    found, state = hashlib.sha256(), module.state_dict()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest() if state else None


def load_metadata(path: str | Path) -> dict[str, str]:
    """What `save_state` was given as metadata; empty if nothing. Raises UserError as `load_state` does."""
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = Path(path).stat().st_size
            header = file.read(length) if length <= size - 8 else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    return dict(_header(path, header).get("__metadata__", {}))


def save_state(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file in one step.

    Parameters
    ----------
    path:
        Ends in .safetensors; a file there is replaced.
    tensors:
        By name, on any device; tensors that share memory are written once each.
    metadata:
        Words to keep with them.

    Raises
    ------
    UserError
        The file cannot be written; an older file of this name is then left as it was.
    """
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(_apart(tensors), temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:  # hides the OSError that `replacing` explains
            raise OSError(str(error)) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, no two of which share memory, as the format wants them."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != plain.nbytes:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        result[name] = plain
    return result


def _parse_safetensors(path: str | Path, data: bytes) -> dict[str, Tensor]:
    length = int.from_bytes(data[:8], "little")
    _header(
        path, data[8 : 8 + length]
    )  # finds what the library lets pass: of two tensors of one name it keeps the last
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read as safetensors: {_line(error)}; {AGAIN}") from error


def _header(path: str | Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # cut short, not JSON, not UTF-8, a duplicate, or nested without end
        raise UserError(f"{path}: cannot be read as safetensors: {_line(error)}; {AGAIN}") from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: cannot be read as safetensors: the header is no mapping; {AGAIN}")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the header names {twice} twice")
    return mapping


def _parse_torch(path: str | Path, data: bytes, below: str | None) -> dict[str, Tensor]:
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many kinds
        raise UserError(f"{path}: cannot be read as torch weights: {_line(error)}; {AGAIN}") from error
    if isinstance(state, dict) and below is not None:
        state = state.get(below, state)
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}; save a dict of tensors by name")
    foreign = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if foreign:
        raise UserError(f"{path}: the entry {foreign[0]} is no tensor; save a dict of tensors by name")
    return dict(state)


def _line(error: Exception) -> str:
    """The first sentence of an error: torch explains at length, and recommends what we never do."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:200].rstrip(".")
