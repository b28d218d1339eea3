"""A swap as one ONNX file, for programs without torch and for `fsf swap`.

Inputs: `source` and `target`, aligned crops (B, 3, S, S), float32, RGB, in [-1, 1], for any B. Outputs: `swap`, as the
inputs; `z_id`, the sources' embeddings (B, D); and `mask` (B, 1, S, S) in 0..1, how much of the swap to take, where the
generator paints one and no refiner follows. Metadata: `name`, `size`, `recipe` (YAML with every default), `sha256` (of
the networks' tensors, see `fsframework.utils.weights.digest`), `digital_source_type` (the IPTC term that pictures made
with it should carry).

It is one file with both inputs, and not an encoder beside a painter, because one file cannot lose its half, two
pictures in and one out needs no explanation, and refiners such as HEAR-Net need the encoder in the painter anyway. Who
swaps many targets with one source can cut it at `z_id`, as `fsframework.models.onnx_runtime` does.

Networks are captured by torch.export in its strict form, which is what `traceable` promises; there
torch.compiler.is_compiling() holds, by which convolutions and norms leave our CPU kernels out.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fsframework.core.components import Generator
from fsframework.core.errors import UserError
from fsframework.core.part import providers
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.data.samples import FewFaces
from fsframework.media.image_io import SOURCE_TYPE
from fsframework.media.tensor import to_tensor
from fsframework.models.onnx_runtime import needing_onnx, run, session
from fsframework.recipe.schema import Recipe
from fsframework.utils.files import cache_folder, replacing
from fsframework.utils.weights import digest

if TYPE_CHECKING:
    import onnx

OPSET = 20
TOLERANCE = 1e-4  # between torch and onnxruntime, of values in [-1, 1]
BATCHES = (1, 3)  # that a file is checked with
MOST = 2_000_000_000  # bytes of tensors; protobuf ends at 2 GiB


class Checked(NamedTuple):
    """What was found when a file was compared with torch."""

    difference: float  # the largest, of all outputs
    batches: tuple[int, ...]  # numbers of pairs that were swapped at once


def write(recipe: Recipe, swapper: Swapper, out: Path) -> Checked:
    """Write a loaded method, in eval mode on the CPU, as ONNX, once it was seen to give what torch gives.

    Raises
    ------
    UserError
        A part is not made of torch operations alone, ONNX's packages are missing, the file would differ from torch by
        more than `TOLERANCE`, or cannot be written. A file that was there before then stays.
    """
    _check_parts(recipe, swapper)
    with replacing(out) as temporary:
        model = _translated(recipe, swapper)
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        checked = check(temporary, swapper, recipe.size)
        if not checked.difference <= TOLERANCE:  # NaN is none
            apart = f"onnxruntime's swaps are {checked.difference:.1e} from torch's, more than {TOLERANCE:.0e}"
            raise UserError(f"{out}: was not written: {apart}; use the model with torch")
    return checked


def cached(recipe: Recipe, swapper: Swapper) -> Path:
    """The ONNX file of a loaded method in the cache folder, which is written unless it is there. Errors as `write`."""
    about = [str(digest(swapper)), recipe.digest(), *providers(recipe), torch.__version__]
    key = hashlib.sha256("\0".join(about).encode()).hexdigest()[:24]
    file = cache_folder() / "onnx" / f"{recipe.name}-{key}.onnx"
    if not file.is_file():
        _check_parts(recipe, swapper)
        print(f"note: {recipe.name} is exported to ONNX, once; it takes half a minute", file=sys.stderr)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{file.parent}: cannot be made: {error.strerror or error}; set XDG_CACHE_HOME") from error
        write(recipe, swapper, file)
    return file


def check(file: Path, swapper: Swapper, size: int) -> Checked:
    """Compare a file with torch, on noise and on aligned crops of a photograph."""
    ready = session(file.read_bytes())
    noise = torch.rand(2, max(BATCHES), 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    crops = to_tensor(np.stack([sample.image for sample in FewFaces(size).samples]))
    pairs = [(noise[0], noise[1]), (crops[[0, 2, 4]], crops[[3, 5, 1]])]
    worst = 0.0
    for count in BATCHES:
        for source, target in pairs:
            with torch.inference_mode():
                right = _Swap(swapper)(source[:count], target[:count])
            found = run(ready, source=source[:count], target=target[:count])
            apart = [(one - other).abs().max() for one, other in zip(found, right, strict=True)]
            worst = max(worst, *(float(each.nan_to_num(torch.inf)) for each in apart))
    return Checked(worst, BATCHES)


class _Swap(nn.Module):
    """A swapper that takes and gives tensors."""

    def __init__(self, swapper: Swapper) -> None:
        super().__init__()
        self.swapper = swapper

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        result = self.swapper(SwapBatch.of(FaceBatch.of(source), FaceBatch.of(target)))
        if result.mask is None or self.swapper.refiner is not None:
            return result.image, result.z_id
        return result.image, result.z_id, result.mask


def _check_parts(recipe: Recipe, swapper: Swapper) -> None:
    """Raise UserError, naming it, if a part of the method cannot be captured."""
    if recipe.networks.generator is None:
        raise UserError(f"{recipe.name}: is a recogniser and swaps nothing; name another model")
    for place in ("identity", "attributes", "generator", "refiner"):
        part = getattr(swapper, place)
        if part is not None and not part.traceable:
            what = f"{place} {part.name} is not made of torch operations alone (its class does not say traceable)"
            raise UserError(f"{recipe.name}: cannot be exported to ONNX: the {what}; use the model with torch")
    if type(swapper.generator).supports is not Generator.supports:
        what = f"generator {swapper.generator.name} knows only some people, which a file cannot say"
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: the {what}; use the model with torch")
    held = sum(value.nbytes for value in swapper.state_dict().values())
    if held > MOST:
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: {held / 1e9:.1f} GB are too many for one file")


def _translated(recipe: Recipe, swapper: Swapper) -> "onnx.ModelProto":
    """The swapper's graph, with its metadata. Raises UserError if it cannot be captured."""
    with needing_onnx():
        import onnx
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    plain = _Swap(swapper)
    inputs = torch.zeros(2, 2, 3, recipe.size, recipe.size).unbind()
    with torch.inference_mode():
        outputs = plain(*inputs)  # fills what networks compute once, such as the matrices of a crop
    names = ["swap", "z_id", "mask"][: len(outputs)]
    batch = {0: torch.export.Dim("batch")}
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(plain, inputs, dynamic_shapes={"source": batch, "target": batch}, strict=True)
            found = torch.onnx.export(
                program,
                (),
                input_names=["source", "target"],
                output_names=names,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # networks may be anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: {reason}; use the model with torch") from error
    assert found is not None
    model: onnx.ModelProto = found.model_proto
    _anonymous(model.graph)
    model.producer_name = "fsframework"
    about = {
        "name": recipe.name,
        "size": str(recipe.size),
        "recipe": recipe.dump_yaml(),
        "sha256": str(digest(swapper)),
        "digital_source_type": SOURCE_TYPE,
    }
    onnx.helper.set_model_props(model, about)
    return model


def _anonymous(graph: "onnx.GraphProto") -> None:
    """Drop what tells of the machine: which lines of which files each operation came from."""
    graph.ClearField("metadata_props")
    for each in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        each.ClearField("metadata_props")
        each.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.onnx and its optimizer say about their own insides."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
