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
from typing import TYPE_CHECKING

import torch

from fsframework.core.errors import UserError
from fsframework.core.part import providers
from fsframework.core.swapper import Swapper
from fsframework.media.image_io import SOURCE_TYPE
from fsframework.models.graph_export import REMEDY, TOLERANCE, Checked, Swap, check_parts, difference, reason_of
from fsframework.models.onnx_runtime import needing_onnx, run, session
from fsframework.recipe.schema import Recipe
from fsframework.utils.files import cache_folder, make_cache, replacing
from fsframework.utils.weights import digest

if TYPE_CHECKING:
    import onnx

OPSET = 20
MOST = 2_000_000_000  # bytes of tensors; protobuf is limited to 2 GiB


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
            problem = f"onnxruntime's swaps are {checked.difference:.1e} from torch's, more than {TOLERANCE:.0e}"
            raise UserError(f"{out}: was not written: {problem}; {REMEDY}")
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
        make_cache(file.parent)
        write(recipe, swapper, file)
    return file


def check(file: Path, swapper: Swapper, size: int) -> Checked:
    """Compare a file with torch, on noise and on aligned crops of a photograph; return the largest difference."""
    onnx_session = session(file.read_bytes())
    return difference(swapper, lambda source, target: run(onnx_session, source=source, target=target), size)


def _check_parts(recipe: Recipe, swapper: Swapper) -> None:
    """Raise UserError, with the part's name, unless all parts of the method can be exported."""
    check_parts(recipe, swapper, "exported to ONNX")
    size = sum(value.nbytes for value in swapper.state_dict().values())
    if size > MOST:
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: {size / 1e9:.1f} GB are too large for one file")


def _to_onnx(recipe: Recipe, swapper: Swapper) -> "onnx.ModelProto":
    """Return the swapper's graph with its metadata; raise UserError if it cannot be exported."""
    with needing_onnx():
        import onnx
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    network = Swap(swapper)
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
        raise UserError(f"{recipe.name}: cannot be exported to ONNX: {reason_of(error)}; {REMEDY}") from error
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
