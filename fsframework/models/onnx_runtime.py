"""Swap by onnxruntime: run a model that `fsframework.models.onnx_export` wrote, in place of a `Swapper`.

The file's graph has source and target as inputs. Here it is cut at the embedding (see `graph_swapper`). An ONNX file
contains no code. It is parsed from bytes in memory, so that it cannot refer to other files.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsframework.core.errors import UserError
from fsframework.models.graph_swapper import GraphSwapper
from fsframework.recipe.schema import Recipe
from fsframework.utils.weights import read

if TYPE_CHECKING:
    import onnx

SUFFIX = ".onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript", "onnx_ir")
MAKE = "write one with: fsf export MODEL FILE.onnx"


@contextmanager
def needing_onnx() -> Iterator[None]:
    """Raise UserError with the command to install if the block fails to import one of ONNX's packages."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in PACKAGES:
            raise
        raise UserError(f'ONNX: {error.name} is not installed: pip install "fsframework[onnx]"') from None


class CutModel(NamedTuple):
    """An exported model, cut at the embedding. Both graphs also have the target as an input."""

    embed: "onnx.ModelProto"  # source to z_id; of the target only the batch size matters
    generate: "onnx.ModelProto"  # z_id to swap, and mask if the model has one
    dim: int  # length of an embedding
    weights_sha256: str | None


def cut(model: "onnx.ModelProto", size: int, name: str) -> CutModel:
    """Return the graphs of an exported model, for crops of a size.

    Raises UserError, with `name`, if the graph does not swap crops of this size.
    """
    with needing_onnx():
        from onnx.utils import Extractor
    outputs = [value.name for value in model.graph.output]
    _check_inputs(model, size, name)
    if not {"swap", "z_id"} <= set(outputs):
        raise UserError(f"{name}: has the outputs {', '.join(outputs) or 'none'}, not swap and z_id; export it again")
    with _graph_error_context(name):
        extractor = Extractor(model)
        embed = extractor.extract_model(["source", "target"], ["z_id"])
        names = [output for output in ("swap", "mask") if output in outputs]
        generate = extractor.extract_model(["z_id", "target"], names)
        dim = next(value for value in model.graph.output if value.name == "z_id").type.tensor_type.shape.dim[1]
    return CutModel(embed, generate, dim.dim_value, _metadata(model).get("sha256"))


class OnnxSwapper(GraphSwapper):
    """Swapper that onnxruntime runs on the CPU, with the number of threads of torch.

    Parameters
    ----------
    model:
        The parsed file.
    recipe:
        The recipe from its metadata.
    name:
        The name in error messages.

    Raises
    ------
    UserError
        onnxruntime cannot use the graph, or the graph does not swap crops of the recipe's size.
    """

    runtime = "onnx"

    def __init__(self, model: "onnx.ModelProto", recipe: Recipe, name: str) -> None:
        graphs = cut(model, recipe.size, name)
        with _graph_error_context(name):
            embed, generate = _Graph(graphs.embed, name), _Graph(graphs.generate, name)
        super().__init__(
            recipe,
            graphs.dim,
            lambda source: embed(source=source, target=source)[0],
            lambda z_id, target: generate(z_id=z_id, target=target),
            graphs.weights_sha256,
        )


class _Graph:
    """Graph with an onnxruntime session."""

    def __init__(self, model: "onnx.ModelProto", name: str) -> None:
        self.session = session(model.SerializeToString())
        self.name = name

    def __call__(self, **inputs: Tensor) -> list[Tensor]:
        """Return the outputs for inputs by name, float32, on the CPU."""
        with _graph_error_context(self.name):
            return run(self.session, **inputs)


def session(model: bytes) -> Any:
    """Return an onnxruntime session of a model's bytes: on the CPU, with torch's number of threads, without logs."""
    with needing_onnx():
        import onnxruntime  # type: ignore[import-untyped]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised as exceptions
    # Threads that spin after each swap would compete with torch's threads, which detect faces.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: Any, **inputs: Tensor) -> list[Tensor]:
    """Return all outputs of a session for inputs by name, as float32 tensors on the CPU."""
    arrays = {key: np.ascontiguousarray(value.detach().float().cpu().numpy()) for key, value in inputs.items()}
    return [torch.from_numpy(output) for output in session.run(None, arrays)]


def parse(file: Path, sha256: str | None = None) -> "onnx.ModelProto":
    """Return the model in a file.

    Raises UserError if it cannot be read, has another hash, or is not ONNX.
    """
    with needing_onnx():
        import onnx
    data = read(file, sha256)
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf raises errors of several types
        model = onnx.ModelProto()
    if not model.graph.node:
        raise UserError(f"{file}: cannot be read as ONNX: it is incomplete or in another format; get it again")
    return model


def recipe_of(file: Path, model: "onnx.ModelProto", sets: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a model's metadata, with overrides.

    Raises UserError if there is none or it is invalid.
    """
    metadata = _metadata(model)
    if "recipe" not in metadata:
        raise UserError(f"{file}: contains no recipe, so fsframework did not write it; {MAKE}")
    return Recipe.parse(metadata["recipe"], str(file), sets)


def _metadata(model: "onnx.ModelProto") -> dict[str, str]:
    """Return a model's metadata by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _check_inputs(model: "onnx.ModelProto", size: int, name: str) -> None:
    """Raise UserError unless the graph has a source and a target of this size as inputs."""
    for input_name in ("source", "target"):
        graph_input = next((value for value in model.graph.input if value.name == input_name), None)
        if graph_input is None:
            raise UserError(f"{name}: has no input {input_name}, so it cannot swap faces; {MAKE}")
        shape = [dim.dim_value for dim in graph_input.type.tensor_type.shape.dim]
        if shape[1:] != [3, size, size]:
            sides = " x ".join(map(str, shape[1:]))
            raise UserError(
                f"{name}: has an input {input_name} of {sides}, its recipe a size of {size} px; export it again"
            )


@contextmanager
def _graph_error_context(name: str) -> Iterator[None]:
    """Raise any error of onnxruntime as UserError with the file's name."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rpartition(" : ")[2][:200] or type(error).__name__
        raise UserError(f"{name}: onnxruntime cannot use it: {reason}; export it again") from error
