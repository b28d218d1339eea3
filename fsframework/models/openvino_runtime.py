"""Swap by OpenVINO, on the CPU: run graphs that `fsframework.models.openvino_export` made from a `Swapper`.

Graphs have a batch of one face, and faces run one after another. With dynamic shapes a face takes a third longer, and
in batches of eight as long as alone.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fsframework.core.errors import UserError
from fsframework.models.graph_swapper import GraphSwapper
from fsframework.recipe.schema import Recipe

if TYPE_CHECKING:
    from fsframework.models.onnx_runtime import CutModel

TELEMETRY = "openvino_telemetry"


class OpenVinoSwapper(GraphSwapper):
    """Swapper that OpenVINO runs on the CPU, with the number of threads that torch has when it is built.

    Parameters
    ----------
    recipe:
        The method's recipe.
    dim:
        The length of an embedding.
    embed, generate:
        The graphs: from source to z_id, and from z_id and target to the outputs.
    weights_sha256:
        The digest of the networks' tensors.
    """

    runtime = "openvino"

    def __init__(
        self, recipe: Recipe, dim: int, embed: "FaceGraph", generate: "FaceGraph", weights_sha256: str | None
    ) -> None:
        # ONNX graphs have the target as an input, too, of which only the batch size matters.
        super().__init__(recipe, dim, lambda source: embed(source, source)[0], generate, weights_sha256)

    @classmethod
    def of_onnx(cls, graphs: "CutModel", recipe: Recipe, name: str, bf16: bool) -> "OpenVinoSwapper":
        """Return the swapper of an ONNX model. Raise UserError, with `name`, if OpenVINO cannot use its graphs."""
        size = [1, 3, recipe.size, recipe.size]

        def read(model: Any, inputs: dict[str, list[int]], bf16: bool) -> "FaceGraph":
            with error_context(name):
                graph = core().read_model(model.SerializeToString(), b"")
                present = {port.any_name for port in graph.inputs}
                graph.reshape({key: shape for key, shape in inputs.items() if key in present})
                return FaceGraph(graph, name, bf16, names=list(inputs))

        embed = read(graphs.embed, {"source": size, "target": size}, False)
        generate = read(graphs.generate, {"z_id": [1, graphs.dim], "target": size}, bf16)
        return cls(recipe, graphs.dim, embed, generate, graphs.weights_sha256)


class FaceGraph:
    """A compiled graph for one face, called with batches of faces.

    Arguments of a call that the graph does not use are ignored.

    Parameters
    ----------
    model:
        The graph, an `openvino.Model` or the path of one.
    name:
        The name in error messages.
    bf16:
        Whether to compute in bfloat16, else in float32.
    cache:
        A folder for the compiled graph, which makes later loads faster.
    names:
        The names of the inputs, in the order of the arguments; None: the graph's own.

    Raises
    ------
    UserError
        OpenVINO cannot use the graph.
    """

    def __init__(
        self, model: Any, name: str, bf16: bool, cache: Path | None = None, names: list[str] | None = None
    ) -> None:
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # processes that run side by side would be pinned to the same cores
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        self.name = name
        self.lock = threading.Lock()  # a request runs one inference at a time
        with error_context(name):
            compiled = core().compile_model(model, "CPU", settings)
            own = [port.any_name for port in compiled.inputs]
            self.order = [(own if names is None else names).index(each) for each in own]
            self.request = compiled.create_infer_request()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return the outputs for inputs (B, ...), float32, on the CPU."""
        arrays = [np.ascontiguousarray(inputs[index].detach().float().cpu().numpy()) for index in self.order]
        with error_context(self.name), self.lock:
            faces = [
                list(self.request.infer([array[row : row + 1] for array in arrays], share_inputs=True).values())
                for row in range(len(arrays[0]))
            ]
        return [torch.from_numpy(np.concatenate(outputs)) for outputs in zip(*faces, strict=True)]


def is_installed() -> bool:
    """Return whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


def load_openvino() -> Any:
    """Return the module `openvino`, imported without its telemetry.

    Otherwise the import sends an event to its makers unless the user has opted out.

    Raises UserError if OpenVINO is not installed, or cannot be imported.
    """
    with _without_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import openvino
        except ModuleNotFoundError as error:
            if error.name != "openvino":
                raise
            raise UserError('OpenVINO: openvino is not installed: pip install "fsframework[openvino]"') from None
        except (ImportError, OSError) as error:  # such as a library that this system lacks
            reason = str(error).partition("\n")[0]
            raise UserError(f"OpenVINO: cannot be imported: {reason}; use --runtime torch") from error
    return openvino


def has_bf16() -> bool:
    """Return whether OpenVINO computes bfloat16 on this processor."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def core() -> Any:
    """Return OpenVINO's device manager. Raise UserError as `load_openvino`."""
    return load_openvino().Core()


@contextmanager
def error_context(name: str) -> Iterator[None]:
    """Raise any error of OpenVINO as UserError with the name of the model or file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # The first lines name OpenVINO's source files.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if ".cpp:" not in line and ".hpp:" not in line), type(error).__name__)
        raise UserError(f"{name}: OpenVINO cannot use it: {reason[:200]}; use --runtime torch") from error


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the telemetry package from imports; OpenVINO uses a stub without it."""
    present = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # which makes its import fail
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        if present is not None:
            sys.modules[TELEMETRY] = present
