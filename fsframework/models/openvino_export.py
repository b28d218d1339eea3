"""Convert a swapper to graphs of OpenVINO, once, and keep them in the cache folder.

An entry is a folder: `embed` and `generate` as .xml and .bin, `entry.json`, and `compiled`, OpenVINO's own cache. Its
key covers weights, networks, versions and source code. An entry may also hold the reason why a method cannot be
converted, so that this is not tried again. The `KEPT` entries that were used last are kept.

Networks are captured by torch.export and converted by OpenVINO's frontend for torch, without ONNX.
"""

import hashlib
import json
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fsframework.core.errors import UserError
from fsframework.core.part import providers
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch
from fsframework.models.graph_export import REMEDY, TOLERANCE, Swap, check_parts, difference, reason_of
from fsframework.models.openvino_runtime import FaceGraph, OpenVinoSwapper, load_openvino
from fsframework.recipe.schema import Recipe
from fsframework.utils.files import cache_folder, make_cache, making
from fsframework.utils.weights import digest

FORMAT = 1  # of an entry
KEPT = 4  # entries, of up to 170 MB each
ENTRY = "entry.json"
GOAL = "converted to OpenVINO"


class BrokenEntryError(ValueError):
    """The entry is incomplete, or not one of ours."""


def load(recipe: Recipe, swapper: Swapper, bf16: bool) -> OpenVinoSwapper:
    """Return a loaded method, in eval mode on the CPU, as run by OpenVINO; its graphs are made if they are missing.

    Parameters
    ----------
    recipe, swapper:
        The method.
    bf16:
        Whether to generate in bfloat16. Embeddings are float32.

    Raises
    ------
    UserError
        OpenVINO is not installed. The method cannot be converted, or its swaps would differ from torch's by more than
        `TOLERANCE` in float32. The cache cannot be written.
    """
    openvino = load_openvino()
    check_parts(recipe, swapper, GOAL)
    weights = str(digest(swapper))
    folder = cache_folder() / "openvino" / f"{recipe.name}-{_key(recipe, swapper, weights, openvino.__version__)}"
    if folder.exists():
        try:
            return _open(folder, recipe, swapper, weights, bf16)
        except BrokenEntryError as error:
            print(f"note: {folder}: {error}, so it is made anew", file=sys.stderr)
            _remove(folder)
    make_cache(folder.parent)
    print(f"note: {recipe.name} is prepared for OpenVINO, once; this takes about 15 seconds", file=sys.stderr)
    try:
        with making(folder) as temporary:
            _make(temporary, recipe, swapper, weights)
    except UserError:
        if not (folder / ENTRY).is_file():  # another process may have made it
            raise
    _remove_old(folder.parent)
    try:
        return _open(folder, recipe, swapper, weights, bf16)
    except BrokenEntryError as error:
        raise UserError(f"{folder}: {error}; remove it") from error


def _key(recipe: Recipe, swapper: Swapper, weights: str, version: str) -> str:
    """Return the name of an entry: a hash of everything that the graphs depend on."""
    networks = json.dumps(recipe.networks.model_dump(mode="json"), sort_keys=True)
    parts = [str(FORMAT), weights, networks, str(recipe.size), *providers(recipe.networks), torch.__version__, version]
    return hashlib.sha256("\0".join([*parts, _source_digest(swapper)]).encode()).hexdigest()[:24]


def _source_digest(swapper: Swapper) -> str:
    """Return the SHA-256 of the source files that define the networks, and of those that these import.

    Files of other packages than the framework's and the networks' are not followed; torch's version stands for them.
    """
    packages = {"fsframework", *(type(part).__module__.partition(".")[0] for part in swapper.children())}
    todo = {base.__module__ for module in swapper.modules() for base in type(module).__mro__} | {__name__}
    found: dict[str, bytes] = {}
    while todo:
        name = todo.pop()
        module = sys.modules.get(name)
        if name in found or module is None or name.partition(".")[0] not in packages:
            continue
        file = getattr(module, "__file__", None)
        found[name] = Path(file).read_bytes() if file is not None and Path(file).is_file() else b""
        for value in list(vars(module).values()):
            other = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(other, str):
                todo.add(other)
    sha256 = hashlib.sha256()
    for name in sorted(found):
        sha256.update(name.encode() + hashlib.sha256(found[name]).digest())
    return sha256.hexdigest()


def _open(folder: Path, recipe: Recipe, swapper: Swapper, weights: str, bf16: bool) -> OpenVinoSwapper:
    """Return the swapper of an entry.

    Raises BrokenEntryError if the entry is damaged, and UserError if it says that there are no graphs.
    """
    try:
        entry = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        problem, files = entry["problem"], entry["files"]
        with suppress(OSError):
            (folder / ENTRY).touch()  # the date of its last use
        for name, size in files.items():
            if (folder / name).stat().st_size != size:
                raise BrokenEntryError(f"{name} does not have {size} bytes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise BrokenEntryError(f"is damaged ({reason})") from error
    if problem is not None:
        raise UserError(str(problem))
    try:
        return _load_graphs(folder, recipe, swapper, weights, bf16, folder / "compiled")
    except UserError as error:
        raise BrokenEntryError(f"is damaged ({error})") from error


def _remove(entry: Path) -> None:
    """Remove an entry, or what has its name; what cannot be removed is reported when it is replaced."""
    with suppress(OSError):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_old(cache: Path) -> None:
    """Remove all entries but the `KEPT` that were used last."""
    dates: dict[Path, float] = {}
    for entry in cache.iterdir():
        with suppress(OSError):  # being made, or removed by another process
            dates[entry] = (entry / ENTRY).stat().st_mtime
    for entry in sorted(dates, key=lambda each: dates[each], reverse=True)[KEPT:]:
        _remove(entry)


def _load_graphs(
    folder: Path, recipe: Recipe, swapper: Swapper, weights: str, bf16: bool, cache: Path | None
) -> OpenVinoSwapper:
    """Return the swapper of a folder's graphs, compiled into `cache`. Raise UserError if OpenVINO cannot use them."""
    embed = FaceGraph(str(folder / "embed.xml"), recipe.name, False, cache)
    generate = FaceGraph(str(folder / "generate.xml"), recipe.name, bf16, cache)
    return OpenVinoSwapper(recipe, swapper.identity.dim, embed, generate, weights)


def _make(folder: Path, recipe: Recipe, swapper: Swapper, weights: str) -> None:
    """Write an entry: graphs that equal torch within `TOLERANCE`, or the reason why there are none."""
    problem = None
    try:
        _convert(folder, recipe.size, swapper)
        ours = _load_graphs(folder, recipe, swapper, weights, False, None)
        worst = difference(swapper, Swap(ours), recipe.size).difference
        if not worst <= TOLERANCE:  # also true for NaN
            problem = f"OpenVINO's swaps are {worst:.1e} from torch's, more than {TOLERANCE:.0e}"
    except (OSError, MemoryError):
        raise
    except Exception as error:  # networks may raise any error
        problem = reason_of(error)
    if problem is not None:
        for file in folder.iterdir():
            file.unlink()
        problem = f"{recipe.name}: cannot be {GOAL}: {problem}; {REMEDY}"
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    (folder / ENTRY).write_text(json.dumps({"problem": problem, "files": files}, indent=2) + "\n", encoding="utf-8")


class _Embed(nn.Module):
    """The first graph."""

    def __init__(self, swapper: Swapper) -> None:
        super().__init__()
        self.identity = swapper.identity

    def forward(self, source: Tensor) -> tuple[Tensor]:
        return (self.identity(FaceBatch.of(source)),)


class _Generate(nn.Module):
    """The second graph. A method whose refiner reads the source's pixels fails the comparison with torch."""

    def __init__(self, swapper: Swapper) -> None:
        super().__init__()
        self.swap = Swap(swapper)

    def forward(self, z_id: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        image, _, *mask = self.swap(target, target, z_id)
        return image, *mask


@torch.no_grad()
def _convert(folder: Path, size: int, swapper: Swapper) -> None:
    """Write both graphs. Any error may be raised."""
    openvino = load_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    face = torch.zeros(1, 3, size, size)
    networks: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "embed": (_Embed(swapper), (face,)),
        "generate": (_Generate(swapper), (swapper.identity(FaceBatch.of(face)), face)),
    }
    frontend = FrontEndManager().load_by_framework("pytorch")
    for name, (network, inputs) in networks.items():
        network(*inputs)  # fills the caches of networks, such as the matrices of a crop
        with _quiet():
            program = torch.export.export(network, inputs, strict=False)
            # The frontend, and not `convert_model`, which would report the conversion to OpenVINO's makers.
            decoder = TorchFXPythonDecoder.from_exported_program(program)
            model: Any = frontend.convert(frontend.load(decoder))
        # Sizes are dynamic after the conversion.
        model.reshape({port: list(value.shape) for port, value in zip(model.inputs, inputs, strict=True)})
        openvino.save_model(model, str(folder / f"{name}.xml"), compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warnings of torch.export and of OpenVINO's frontend, which concern their own code."""
    logger = logging.getLogger()
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
