"""Export a swapper as one ONNX file, for programs without torch and for `fsf swap`.

Inputs: `source` and `target`, aligned crops (B, 3, S, S), float32, RGB, in [-1, 1], for any B. Outputs: `swap`, as the
inputs; `z_id`, the sources' embeddings (B, D); and `mask` (B, 1, S, S) in 0..1, the share of the swap in each pixel,
if the generator returns one and no refiner follows. Metadata: `name`, `size`, `recipe` (YAML with every default),
`sha256` (of the networks' tensors, see `fsframework.utils.weights.digest`), and `digital_source_type` (the IPTC term
for images made with the model).

One file has both inputs, instead of an encoder and a generator in two files. It cannot be separated, two images in and
one out need no explanation, and refiners such as HEAR-Net need the encoder anyway. To swap many targets with one
source, cut the graph at `z_id`, as `fsframework.models.onnx_runtime` does.

Networks are captured by torch.export in strict mode, which `traceable` guarantees. There
torch.compiler.is_compiling() is true, so convolutions and norms do not use the C kernels.
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
TOLERANCE = 1e-4  # largest difference of torch and onnxruntime, for values in [-1, 1]
BATCHES = (1, 3)  # batch sizes of the check
MOST = 2_000_000_000  # bytes of tensors; protobuf is limited to 2 GiB


class Checked(NamedTuple):
    """Result of a comparison of a file with torch."""

    difference: float  # the largest absolute one, of all outputs
    batches: tuple[int, ...]  # batch sizes


def write(recipe: Recipe, swapper: Swapper, out: Path) -> Checked:
    """Write a loaded method, in eval mode on the CPU, as ONNX, and check it; return the comparison with torch.

    Raises
    ------
    UserError
        A part does not consist of torch operations only, or ONNX's packages are missing. The file would differ from
        torch by more than `TOLERANCE`, or cannot be written. An existing file then stays unchanged.
    """
    _check_parts(recipe, swapper)
    with replacing(out) as temporary:
        model = _to_onnx(recipe, swapper)
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        checked = check(temporary, swapper, recipe.size)
        if not checked.difference <= TOLERANCE:  # also true for NaN
            difference = f"onnxruntime's swaps are {checked.difference:.1e} from torch's, more than {TOLERANCE:.0e}"
            raise UserError(f"{out}: was not written: {difference}; use the model with torch")
    return checked


def cached(recipe: Recipe, swapper: Swapper) -> Path:
    """Return the ONNX file of a loaded method in the cache folder, which is written if it is missing.

    Raises as `write`.
    """
    inputs = [str(digest(swapper)), recipe.digest(), *providers(recipe), torch.__version__]
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:24]
    file = cache_folder() / "onnx" / f"{recipe.name}-{key}.onnx"
    if not file.is_file():
        _check_parts(recipe, swapper)
        print(f"note: {recipe.name} is exported to ONNX, once; this takes half a minute", file=sys.stderr)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{file.parent}: cannot be created: {error.strerror or error}; set XDG_CACHE_HOME"
            ) from error
        write(recipe, swapper, file)
    return file


def check(file: Path, swapper: Swapper, size: int) -> Checked:
    """Compare a file with torch, on noise and on aligned crops of a photograph; return the largest difference."""
    onnx_session = session(file.read_bytes())
    noise = torch.rand(2, max(BATCHES), 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    crops = to_tensor(np.stack([sample.image for sample in FewFaces(size).samples]))
    pairs = [(noise[0], noise[1]), (crops[[0, 2, 4]], crops[[3, 5, 1]])]
    worst = 0.0
    for count in BATCHES:
        for source, target in pairs:
            with torch.inference_mode():
                expected = _Swap(swapper)(source[:count], target[:count])
            outputs = run(onnx_session, source=source[:count], target=target[:count])
            differences = [
                (output - reference).abs().max() for output, reference in zip(outputs, expected, strict=True)
            ]
            worst = max(worst, *(float(difference.nan_to_num(torch.inf)) for difference in differences))
    return Checked(worst, BATCHES)


class _Swap(nn.Module):
    """Swapper with tensors as inputs and outputs."""

    def __init__(self, swapper: Swapper) -> None:
        super().__init__()
        self.swapper = swapper

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        result = self.swapper(SwapBatch.of(FaceBatch.of(source), FaceBatch.of(target)))
        if result.mask is None or self.swapper.refiner is not None:
            return result.image, result.z_id
        return result.image, result.z_id, result.mask


def _check_parts(recipe: Recipe, swapper: Swapper) -> None:
    """Raise UserError, with the part's name, unless all parts of the method can be exported."""
    if recipe.networks.generator is None:
        raise UserError(f"{recipe.name}: contains only an identity encoder and cannot swap faces; choose another model")
    for role in ("identity", "attributes", "generator", "refiner"):
        part = getattr(swapper, role)
        if part is not None and not part.traceable:
            what = f"{role} {part.name} does not consist of torch operations only (its class is not traceable)"
            raise UserError(f"{recipe.name}: cannot be exported to ONNX: the {what}; use the model with torch")
    if type(swapper.generator).supports is not Generator.supports:
        what = f"generator {swapper.generator.name} supports only some identities, which an ONNX file cannot express"
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: the {what}; use the model with torch")
    size = sum(value.nbytes for value in swapper.state_dict().values())
    if size > MOST:
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: {size / 1e9:.1f} GB are too large for one file")


def _to_onnx(recipe: Recipe, swapper: Swapper) -> "onnx.ModelProto":
    """Return the swapper's graph with its metadata; raise UserError if it cannot be exported."""
    with needing_onnx():
        import onnx
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    network = _Swap(swapper)
    inputs = torch.zeros(2, 2, 3, recipe.size, recipe.size).unbind()
    with torch.inference_mode():
        outputs = network(*inputs)  # fills the caches of networks, such as the matrices of a crop
    names = ["swap", "z_id", "mask"][: len(outputs)]
    batch = {0: torch.export.Dim("batch")}
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                network, inputs, dynamic_shapes={"source": batch, "target": batch}, strict=True
            )
            exported = torch.onnx.export(
                program,
                (),
                input_names=["source", "target"],
                output_names=names,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # networks may raise any error
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: {reason}; use the model with torch") from error
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    _strip_debug_info(model.graph)
    model.producer_name = "fsframework"
    metadata = {
        "name": recipe.name,
        "size": str(recipe.size),
        "recipe": recipe.dump_yaml(),
        "sha256": str(digest(swapper)),
        "digital_source_type": SOURCE_TYPE,
    }
    onnx.helper.set_model_props(model, metadata)
    return model


def _strip_debug_info(graph: "onnx.GraphProto") -> None:
    """Remove source files and line numbers of the operations, which reveal paths of the exporting machine."""
    graph.ClearField("metadata_props")
    for entry in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log messages of torch.onnx and its optimizer."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
