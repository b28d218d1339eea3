"""Measure swaps and training steps beside busy processes, by how long waiting threads of OpenMP spin.

    python benchmarks/scripts/busy_cpu.py --save

Each row is a process of its own, with one thread for each CPU, beside `busy` others that only count. `spin` is what
GOMP_SPINCOUNT has: GNU's default, or what `fsf` sets. Figures are medians in milliseconds of up to seven rounds in ten
seconds; settings take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch

from fsframework.cli.main import SPIN
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.models import store
from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.conv import cache_weights
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULT = Path(__file__).parents[1] / "results" / "busy_cpu.json"
COUNTING = "while True: pass"
ROUNDS, SECONDS = 7, 10  # most rounds of a process, and the time after which no other begins


@click.command(help=__doc__)
@click.option("--busy", default=(0, 2, 4), multiple=True, show_default=True, help="Numbers of busy processes.")
@click.option("--rounds", default=1, show_default=True, help="Processes of each row.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
@click.option("--work", type=click.Choice(["torch", "openvino", "step"]), hidden=True)
def main(busy: tuple[int, ...], rounds: int, save: bool, work: str | None) -> None:
    if work is not None:
        print(json.dumps(1000 * statistics.median(timed(step() if work == "step" else swap(work)))))
        return
    rows = []
    for count in busy:
        for name in ("torch", "openvino", "step"):
            times: dict[str, list[float]] = {"default": [], SPIN: []}
            with beside(count):
                for _ in range(rounds):
                    for spin, values in times.items():
                        values.append(measured(name, spin))
            for spin, values in times.items():
                row: dict[str, Any] = {
                    "busy": count,
                    "work": name,
                    "spin": spin,
                    "ms": round(statistics.median(values)),
                }
                row["times_as_fast"] = round(statistics.median(times["default"]) / statistics.median(values), 2)
                click.echo(", ".join(f"{key} {value}" for key, value in row.items()))
                rows.append(row)
    if save:
        write_text(RESULT, json.dumps({**of_script("busy_cpu.py"), "rows": rows}, indent=2) + "\n")


def measured(work: str, spin: str) -> float:
    """Return the milliseconds of a work in a new process."""
    hidden = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    if spin != "default":
        environment["GOMP_SPINCOUNT"] = spin
    command = [sys.executable, __file__, "--work", work]
    return float(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))


@contextmanager
def beside(count: int) -> Iterator[None]:
    """Keep processes busy."""
    processes = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def swap(runtime: Any) -> Callable[[], object]:
    """Return a function that swaps one aligned crop by the default model, in float32."""
    retain_freed_memory()
    trained = store.load(store.DEFAULT, "cpu", runtime=runtime)
    cache_weights(trained.swapper)
    size = trained.recipe.size
    batch = SwapBatch.of(*(FaceBatch.of(torch.rand(1, 3, size, size) * 2 - 1) for _ in range(2)))
    z_id = trained.swapper.identity(batch.source)
    return torch.inference_mode()(lambda: trained.swapper(batch, z_id))


def step() -> Callable[[], object]:
    """Return a function that makes a training step of AEI-Net at 128 px with 4 pairs, in float32."""
    from fsf_benchmarks.speed_work import Work

    return Work("ours", 128, 0.5, 4, False, False, False, False, False, "", "cpu", torch.get_num_threads()).step


def timed(work: Callable[[], object]) -> list[float]:
    """Return the seconds of each round after one of warm-up."""
    work()
    times: list[float] = []
    while len(times) < ROUNDS and (sum(times) < SECONDS or not times):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
