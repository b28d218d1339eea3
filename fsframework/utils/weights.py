"""Read, verify and write weights, without unpickling code.

Weights are safetensors, or torch files (.pt, .pth) that contain only tensors. A file is read once, and the verified
bytes are the parsed bytes, so the file cannot be replaced in between.
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
AGAIN = "it is incomplete or in another format; get it again"


def verify(path: str | Path, sha256: str) -> None:
    """Raise UserError unless a file can be read and has a SHA-256 (64 hexadecimal digits)."""
    read(path, sha256)


def read(path: str | Path, sha256: str | None = None) -> bytes:
    """Return the bytes of a file, verified if a SHA-256 (64 hexadecimal digits) is given.

    Raises
    ------
    UserError
        The file cannot be read, or has another hash; the message contains both hashes.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if sha256 is not None:
        actual = hashlib.sha256(data).hexdigest()
        if actual != sha256.lower():
            raise UserError(f"{path}: the SHA-256 should be {sha256} and is {actual}; get the file again")
    return data


def load_state(path: str | Path, sha256: str | None = None, below: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pt or .pth file by name, on the CPU.

    Parameters
    ----------
    path:
        The file.
    sha256:
        The required hash, 64 hexadecimal digits.
    below:
        The key of the tensors in torch files that contain other objects, too.

    Raises
    ------
    UserError
        The file cannot be read, has another SHA-256, is cut short, or contains other objects than named tensors.
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".pt", ".pth"):
        raise UserError(f"{path}: weights end in .safetensors, .pt or .pth; convert the file")
    data = read(path, sha256)
    return _parse_safetensors(path, data) if suffix == ".safetensors" else _parse_torch(path, data, below)


def fill(module: nn.Module, state: Mapping[str, Tensor], wrong: str) -> None:
    """Load tensors by name into a module.

    Raises UserError, `wrong` and the reason, unless the names and shapes are those of the module.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{wrong}: {str(error).splitlines()[-1].strip()}") from error


def below(prefix: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """Return the entries of a state under `prefix.`, without that prefix."""
    return {key.removeprefix(f"{prefix}."): value for key, value in state.items() if key.startswith(f"{prefix}.")}


def fill_published(module: nn.Module, state: Mapping[str, Tensor], wrong: str) -> None:
    """Load published tensors by name into a module; names that the module lacks are ignored.

    Raises UserError, `wrong` and the reason, if a tensor of the module is missing or has another shape. Batch norms'
    counters may be missing. A prefix `module.` of all names, from training on several GPUs, is removed.
    """
    state = {name.removeprefix("module."): value for name, value in state.items()}
    expected = {name: value for name, value in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, value in expected.items():
        if name not in state or state[name].shape != value.shape:
            actual = tuple(state[name].shape) if name in state else "missing"
            raise UserError(f"{wrong}: {name} is {actual}, not {tuple(value.shape)}")
    module.load_state_dict({name: state[name] for name in expected}, strict=False)


def fold_norms(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution in a Sequential into it, for inference."""
    for layers in [child for child in module.modules() if isinstance(child, nn.Sequential)]:
        for (_, before), (name, layer) in itertools.pairwise(list(layers.named_children())):
            if isinstance(before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(before, layer)
                before.weight, before.bias = fused.weight, fused.bias
                setattr(layers, name, nn.Identity())
    module.requires_grad_(False)


def digest(module: nn.Module) -> str | None:
    """Return the SHA-256 of a module's tensors in float32, in order of their names; None for a module without tensors.

    It identifies the weights of a result, independent of their file. A module whose weights are outside of torch
    provides the digest as `weights_sha256`.
    """
    if (stored := getattr(module, "weights_sha256", None)) is not None:
        return str(stored)
    sha256, state = hashlib.sha256(), module.state_dict()
    for name in sorted(state):
        sha256.update(name.encode())
        sha256.update(state[name].detach().float().cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest() if state else None


def load_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata that `save_state` wrote, empty if there is none.

    Raises UserError as `load_state` does.
    """
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = Path(path).stat().st_size
            header = file.read(length) if length <= size - 8 else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    return dict(_header(path, header).get("__metadata__", {}))


def save_state(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Parameters
    ----------
    path:
        Ends in .safetensors; an existing file is replaced.
    tensors:
        By name, on any device; tensors that share memory are written once each.
    metadata:
        Texts by key, stored with the tensors.

    Raises
    ------
    UserError
        The file cannot be written; an existing file stays unchanged.
    """
    with replacing(path) as temporary:
        try:
            safetensors.torch.save_file(_unshared(tensors), temporary, dict(metadata) if metadata else None)
        except SafetensorError as error:  # hides the OSError that `replacing` reports
            raise OSError(str(error)) from error


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors that share no memory, as safetensors requires."""
    storages: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        storage = copy.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != copy.nbytes:
            copy = copy.clone()
        storages.add(copy.untyped_storage().data_ptr())
        result[name] = copy
    return result


def _parse_safetensors(path: str | Path, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file's bytes."""
    length = int.from_bytes(data[:8], "little")
    _header(path, data[8 : 8 + length])  # rejects duplicate names, of which the library keeps the last
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read as safetensors: {_line(error)}; {AGAIN}") from error


def _header(path: str | Path, text: bytes) -> dict[str, Any]:
    """Return the parsed header of a safetensors file."""
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # cut short, not JSON, not UTF-8, a duplicate, or nested too deeply
        raise UserError(f"{path}: cannot be read as safetensors: {_line(error)}; {AGAIN}") from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: cannot be read as safetensors: the header is no mapping; {AGAIN}")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of pairs; raise ValueError if a key is repeated."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the header names {duplicate} twice")
    return mapping


def _parse_torch(path: str | Path, data: bytes, below: str | None) -> dict[str, Tensor]:
    """Return the tensors of a torch file's bytes."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        raise UserError(f"{path}: cannot be read as torch weights: {_line(error)}; {AGAIN}") from error
    if isinstance(state, dict) and below is not None:
        state = state.get(below, state)
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}; save a dict of tensors by name")
    foreign = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if foreign:
        raise UserError(f"{path}: the entry {foreign[0]} is not a tensor; save a dict of tensors by name")
    return dict(state)


def _line(error: Exception) -> str:
    """Return the first sentence of an error.

    torch's messages are long, and recommend unsafe loading.
    """
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:200].rstrip(".")
