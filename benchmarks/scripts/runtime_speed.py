"""Compare the speed of a model's swaps by torch, onnxruntime and OpenVINO on a CPU.

    python benchmarks/scripts/runtime_speed.py --save

Figures are medians over rounds in which runtimes alternate in one process: milliseconds for each aligned crop, and how
many times as fast as torch in float32. `swap` has the sources' embeddings as input, as in `fsf swap`; `embed` is the
embedding alone. `decibels` is the PSNR to torch's swaps in float32, for values in [-1, 1]. Bfloat16 is left out where
the processor does not multiply it.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.models import store
from fsframework.models.store import Runtime, Trained
from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.conv import cache_weights
from fsframework.ops.precision import Precision, autocast, has_bf16
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULT = Path(__file__).parents[1] / "results" / "runtime_speed.json"
BASE = "torch fp32"
WARM_UP = 2  # rounds


class Way(NamedTuple):
    """A runtime in a precision."""

    runtime: Runtime
    precision: Precision


WAYS = [
    Way("torch", "fp32"),
    Way("torch", "bf16"),
    Way("onnx", "fp32"),
    Way("openvino", "fp32"),
    Way("openvino", "bf16"),
]


@click.command(help=__doc__)
@click.option("--model", default=store.DEFAULT, show_default=True, help="Model, as for fsf swap.")
@click.option("--threads", default=(1, 2), multiple=True, show_default=True, help="Numbers of threads.")
@click.option("--batch", "batches", default=(1, 8), multiple=True, show_default=True, help="Pairs per batch.")
@click.option("--rounds", default=9, show_default=True, help="Timed rounds, after two rounds of warm-up.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
def main(model: str, threads: tuple[int, ...], batches: tuple[int, ...], rounds: int, save: bool) -> None:
    retain_freed_memory()
    rows = [row for count in threads for row in measure(model, count, batches, rounds)]
    if save:
        result = {**of_script("runtime_speed.py"), "model": model, "rows": rows}
        write_text(RESULT, json.dumps(result, indent=2) + "\n")


@torch.inference_mode()
def measure(model: str, threads: int, batches: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Return and print the rows for a number of threads."""
    torch.set_num_threads(threads)  # other runtimes take the number over when a model is loaded
    native = has_bf16(torch.device("cpu"))
    loaded = {
        f"{way.runtime} {way.precision}": store.load(model, "cpu", runtime=way.runtime, precision=way.precision)
        for way in WAYS
        if native or way.precision == "fp32"
    }
    cache_weights(loaded[BASE].swapper)  # as `fsf swap` does
    if native:
        cache_weights(loaded["torch bf16"].swapper)
    rows = []
    for count in batches:
        crops = torch.rand(2, count, 3, loaded[BASE].recipe.size, loaded[BASE].recipe.size) * 2 - 1
        batch = SwapBatch.of(FaceBatch.of(crops[0]), FaceBatch.of(crops[1]))
        z_id = loaded[BASE].swapper.identity(batch.source)
        works = {name: swap_of(trained, batch, z_id) for name, trained in loaded.items()}
        embeddings = {
            f"{name} embed": embed_of(trained, batch.source) for name, trained in loaded.items() if not trained.bf16
        }
        times, images = timed({**works, **embeddings}, rounds)
        for name in works:
            milliseconds = 1000 * statistics.median(times[name]) / count
            row: dict[str, Any] = {"threads": threads, "batch": count, "runtime": name}
            row["swap_ms"] = round(milliseconds, 1)
            row["times_as_fast"] = round(1000 * statistics.median(times[BASE]) / count / milliseconds, 2)
            if f"{name} embed" in times:
                row["embed_ms"] = round(1000 * statistics.median(times[f"{name} embed"]) / count, 1)
            if name != BASE:
                row["decibels"] = round(decibels(images[name], images[BASE]), 1)
            click.echo(", ".join(f"{key} {value}" for key, value in row.items()))
            rows.append(row)
    return rows


def swap_of(trained: Trained, batch: SwapBatch, z_id: Tensor) -> Callable[[], Tensor]:
    """Return the function that swaps a batch."""

    def work() -> Tensor:
        with autocast(trained.device, trained.bf16):
            image: Tensor = trained.swapper(batch, z_id).image
        return image

    return work


def embed_of(trained: Trained, faces: FaceBatch) -> Callable[[], Tensor]:
    """Return the function that embeds faces."""

    def work() -> Tensor:
        z_id: Tensor = trained.swapper.identity(faces)
        return z_id

    return work


def timed(works: dict[str, Callable[[], Tensor]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Return the seconds of each round, and the last results, by name."""
    times: dict[str, list[float]] = {name: [] for name in works}
    results = {}
    for turn in range(rounds + WARM_UP):
        for name, work in works.items():
            started = time.perf_counter()
            results[name] = work()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - started)
    return times, results


def decibels(image: Tensor, right: Tensor) -> float:
    """Return the PSNR of images in [-1, 1]."""
    return float(10 * torch.log10(4 / (image.float() - right.float()).square().mean()))


if __name__ == "__main__":
    main()
