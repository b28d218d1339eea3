"""Swaps by onnxruntime: a model in ONNX, as `fsframework.models.onnx_export` writes it, in the place of a `Swapper`.

The file's graph takes source and target. Here it is cut at the embedding, so that a source is embedded once for any
number of targets, as torch does: repeating it for each target would cost a tenth to a fifth of the time. An ONNX file
holds no code, and is parsed from the bytes that were read, so that it cannot name other files either.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fsframework.core.components import AttributeEncoder, ComponentOptions, Generator, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.recipe.schema import Recipe
from fsframework.utils.weights import read

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "onnx_ir")
MAKE = "make one with: fsf export MODEL FILE.onnx"
NONE = ComponentOptions()


@contextmanager
def needing_onnx() -> Iterator[None]:
    """Say in one line, as a UserError, what to install if the block fails to import one of ONNX's packages."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in PACKAGES:
            raise
        raise UserError(f'ONNX: {error.name} is not installed: pip install "fsframework[onnx]"') from None


class OnnxSwapper(Swapper):
    """A method that onnxruntime runs on the CPU, with as many threads as torch has.

    It swaps and embeds as the `Swapper` that it was exported from. What a swap does not need is not there: attribute
    maps, the coarse swap before a refiner, and the mask of a generator that a refiner follows.

    Parameters
    ----------
    model:
        The parsed file.
    recipe:
        What its metadata say.
    name:
        What errors call it.

    Raises
    ------
    UserError
        onnxruntime cannot use the graph, or it is none of a swap of such crops.
    """

    def __init__(self, model: "onnx.ModelProto", recipe: Recipe, name: str) -> None:
        with needing_onnx():
            from onnx.utils import Extractor
        outputs = [value.name for value in model.graph.output]
        size = recipe.size
        _check_inputs(model, size, name)
        if not {"swap", "z_id"} <= set(outputs):
            raise UserError(f"{name}: gives {', '.join(outputs) or 'nothing'}, not swap and z_id; export it again")
        with _blaming(name):
            cut = Extractor(model)
            embed = _Graph(cut.extract_model(["source", "target"], ["z_id"]), name)
            painted = [each for each in ("swap", "mask") if each in outputs]
            paint = _Graph(cut.extract_model(["z_id", "target"], painted), name)
            dim = next(value for value in model.graph.output if value.name == "z_id").type.tensor_type.shape.dim[1]
        with torch.device("meta"):
            identity: IdentityEncoder = recipe.networks.identity.build()
        encoder = (_Embedding if identity.metric else _Code)(embed, dim.dim_value, identity)
        super().__init__(encoder, _NoMaps(NONE, size), _Anybody(NONE, size, dim.dim_value, []))
        self.paint = paint
        self.weights_sha256 = _about(model).get("sha256")  # see `fsframework.utils.weights.digest`

    def coarse(self, batch: SwapBatch, z_id: Tensor | None = None, z_att: list[Tensor] | None = None) -> SwapResult:
        """The swap itself: the graph does not hand on what was there before the refiner."""
        if z_id is None:
            z_id = self.identity(batch.source)
        image, *mask = self.paint(z_id=z_id, target=batch.target.image)
        return SwapResult(image=image, coarse=image, z_id=z_id, mask=mask[0] if mask else None)


class _Graph:
    """A graph that onnxruntime is ready to run."""

    def __init__(self, model: "onnx.ModelProto", name: str) -> None:
        self.session = session(model.SerializeToString())
        self.name = name

    def __call__(self, **inputs: Tensor) -> list[Tensor]:
        """Its outputs, of inputs by name; float32, on the CPU."""
        with _blaming(self.name):
            return run(self.session, **inputs)


class _Embedding(IdentityEncoder):
    def __init__(self, graph: _Graph, dim: int, exported: IdentityEncoder) -> None:
        super().__init__(NONE)
        self.graph, self.dim = graph, dim
        self.name, self.match_threshold = exported.name, exported.match_threshold  # type: ignore[misc]

    def forward(self, faces: FaceBatch) -> Tensor:
        return self.graph(source=faces.image, target=faces.image)[0]  # of the target only the number of rows matters


class _Code(_Embedding):
    metric = False


class _NoMaps(AttributeEncoder):
    channels: list[int] = []  # noqa: RUF012


class _Anybody(Generator):
    """Knows everybody: `fsframework.models.onnx_export` refuses those that do not."""


def session(model: bytes) -> Any:
    """An onnxruntime session of a model's bytes: on the CPU, with torch's number of threads, and silent."""
    with needing_onnx():
        import onnxruntime  # type: ignore[import-untyped]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong comes as an exception
    # Its threads would go on spinning for a while after each swap, where torch's, which find the faces, want the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: Any, **inputs: Tensor) -> list[Tensor]:
    """All outputs of a session, of inputs by name."""
    arrays = {key: np.ascontiguousarray(value.detach().float().cpu().numpy()) for key, value in inputs.items()}
    return [torch.from_numpy(found) for found in session.run(None, arrays)]


def parse(file: Path, sha256: str | None = None) -> "onnx.ModelProto":
    """The model in a file. Raises UserError if it cannot be read, has another hash, or is no ONNX."""
    with needing_onnx():
        import onnx
    data = read(file, sha256)
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf has errors of its own, of several kinds
        model = onnx.ModelProto()
    if not model.graph.node:
        raise UserError(f"{file}: cannot be read as ONNX: it is incomplete or of another kind; get it again")
    return model


def recipe_of(file: Path, model: "onnx.ModelProto", sets: Sequence[str] = ()) -> Recipe:
    """The recipe in a model's metadata, with overrides. Raises UserError if there is none, or it cannot be used."""
    about = _about(model)
    if "recipe" not in about:
        raise UserError(f"{file}: holds no recipe, so it is none of ours; {MAKE}")
    return Recipe.parse(about["recipe"], str(file), sets)


def _about(model: "onnx.ModelProto") -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_inputs(model: "onnx.ModelProto", size: int, name: str) -> None:
    """Raise UserError unless the graph takes a source and a target of this size."""
    for wanted in ("source", "target"):
        found = next((value for value in model.graph.input if value.name == wanted), None)
        if found is None:
            raise UserError(f"{name}: takes no {wanted}, so it swaps nothing; {MAKE}")
        shape = [each.dim_value for each in found.type.tensor_type.shape.dim]
        if shape[1:] != [3, size, size]:
            sides = " x ".join(map(str, shape[1:]))
            raise UserError(f"{name}: takes a {wanted} of {sides}, its recipe says {size} px; export it again")


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Say which file onnxruntime cannot use; it raises errors of many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rpartition(" : ")[2][:200] or type(error).__name__
        raise UserError(f"{name}: onnxruntime cannot use it: {reason}; export it again") from error
