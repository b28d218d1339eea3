"""Compare the speed of a model's swaps by torch and by onnxruntime on a CPU.

    python benchmarks/scripts/onnx_speed.py --save

Figures are aligned crops/s, medians over rounds in which implementations alternate in one process. `swap` has the
sources' embeddings as input, as in `fsf swap`. `whole` is the exported file, which embeds the sources each time, and
`embed` the embedding alone. `difference` is the maximum difference to torch's swaps, for values in [-1, 1].
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.models import store
from fsframework.models.onnx_runtime import run, session
from fsframework.ops.allocator import retain_freed_memory
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULT = Path(__file__).parents[1] / "results" / "onnx_speed.json"


@click.command(help=__doc__)
@click.option("--model", default=store.DEFAULT, show_default=True, help="Model, as for fsf swap.")
@click.option("--threads", default=(1, 2), multiple=True, show_default=True, help="Numbers of threads.")
@click.option("--batch", "batches", default=(1, 8), multiple=True, show_default=True, help="Pairs per batch.")
@click.option("--rounds", default=9, show_default=True, help="Timed rounds, after two rounds of warm-up.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
def main(model: str, threads: tuple[int, ...], batches: tuple[int, ...], rounds: int, save: bool) -> None:
    retain_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "swap.onnx"
        store.export(model, file)
        size = file.stat().st_size
        click.echo(f"{model}: {size / 1e6:.1f} MB")
        rows = [row for count in threads for row in measure(model, file, count, batches, rounds)]
    if save:
        result = {
            **of_script("onnx_speed.py"),
            "model": model,
            "file_mb": round(size / 1e6, 1),
            "rows": rows,
        }
        write_text(RESULT, json.dumps(result, indent=2) + "\n")


@torch.inference_mode()
def measure(model: str, file: Path, threads: int, batches: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Return and print the rows for a number of threads."""
    torch.set_num_threads(threads)  # sessions take the number over at creation
    trained, by_onnx = store.load(model, "cpu"), store.load(file).swapper
    whole = session(file.read_bytes())
    rows = []
    for count in batches:
        ways = ways_of(trained.swapper, by_onnx, whole, trained.recipe.size, count)
        times: dict[str, list[float]] = {name: [] for name in ways}
        images = {}
        for turn in range(rounds + 2):
            for name, work in ways.items():
                started = time.perf_counter()
                images[name] = work()
                if turn >= 2:
                    times[name].append(time.perf_counter() - started)
        row: dict[str, Any] = {"threads": threads, "batch": count}
        row |= {f"{name}_per_s": float(f"{count / statistics.median(seconds):.3g}") for name, seconds in times.items()}
        difference = (images["torch_swap"] - images["onnx_swap"]).abs().max()
        row["difference"] = float(f"{float(difference):.1e}")
        click.echo(", ".join(f"{key} {value}" for key, value in row.items()))
        rows.append(row)
    return rows


def ways_of(by_torch: Swapper, by_onnx: Swapper, whole: Any, size: int, count: int) -> dict[str, Callable[[], Tensor]]:
    """Return the functions to time, by name."""
    crops = torch.rand(2, count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    source, target = FaceBatch.of(crops[0]), FaceBatch.of(crops[1])
    batch, z_id = SwapBatch.of(source, target), by_torch.identity(source)
    return {
        "torch_swap": lambda: by_torch(batch, z_id).image,
        "onnx_swap": lambda: by_onnx(batch, z_id).image,
        "onnx_whole": lambda: run(whole, source=source.image, target=target.image)[0],
        "torch_embed": lambda: by_torch.identity(source),
        "onnx_embed": lambda: by_onnx.identity(source),
    }


if __name__ == "__main__":
    main()
