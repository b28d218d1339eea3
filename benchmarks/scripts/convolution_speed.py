"""Measure the convolutions of AEI-Net on a CPU: torch's and Winograd's.

    python benchmarks/scripts/convolution_speed.py --save

Times are milliseconds forward, and forward and backward, medians over rounds in which algorithms alternate. The
thresholds in `fsframework.ops.conv` are based on them.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from fsframework.ops import conv
from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.conv import Conv2d
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULT = Path(__file__).parents[1] / "results" / "convolution_speed.json"
LAYERS = [  # batch, inputs, outputs, side: 64 px at half width, then 128 px at full width
    (24, 512, 256, 4), (24, 256, 128, 8), (24, 128, 64, 16), (24, 64, 32, 32), (24, 32, 32, 64),
    (4, 1024, 1024, 4), (4, 1024, 1024, 8), (4, 512, 512, 16), (4, 256, 256, 32), (4, 128, 128, 64), (4, 64, 64, 128),
]  # fmt: skip
NEVER = 10**9
WAYS = {  # thresholds that force an algorithm
    "torch": {"WINOGRAD": NEVER, "WINOGRAD_WIDE": NEVER},
    "winograd": {"WINOGRAD": 0, "WINOGRAD_WIDE": 0, "NARROW": 0},
}


@click.command(help=__doc__)
@click.option("--rounds", default=7, show_default=True, help="Timed rounds, after two rounds of warm-up.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
def main(rounds: int, save: bool) -> None:
    retain_freed_memory()
    rows = [measure(layer, rounds) for layer in LAYERS]
    if save:
        result = {
            **of_script("convolution_speed.py"),
            "rows": rows,
        }
        write_text(RESULT, json.dumps(result, indent=2) + "\n")


def measure(layer: tuple[int, int, int, int], rounds: int) -> dict[str, Any]:
    """Return and print the row of one layer."""
    batch, inputs, outputs, side = layer
    network = Conv2d(inputs, outputs, 3, padding=1).to(memory_format=torch.channels_last)
    image = torch.randn(batch, inputs, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    direction = torch.randn_like(network(image))
    row: dict[str, Any] = {"batch": batch, "inputs": inputs, "outputs": outputs, "side": side}
    usual = {name: getattr(conv, name) for name in ("WINOGRAD", "WINOGRAD_WIDE", "NARROW")}
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 2):
        for way, thresholds in WAYS.items():
            for name, value in {**usual, **thresholds}.items():
                setattr(conv, name, value)
            for what, work in (("forward", _forward), ("both", _both)):
                seconds = _timed(lambda work=work: work(network, image, direction))  # type: ignore[misc]
                if turn >= 2:
                    times.setdefault((way, what), []).append(seconds)
    for name, value in usual.items():
        setattr(conv, name, value)
    row |= {f"{way}_{what}_ms": round(1000 * statistics.median(found), 1) for (way, what), found in times.items()}
    click.echo(", ".join(f"{key} {value}" for key, value in row.items()))
    return row


@torch.no_grad()
def _forward(network: nn.Module, image: Tensor, direction: Tensor) -> None:
    network(image)


def _both(network: nn.Module, image: Tensor, direction: Tensor) -> None:
    image.grad = None
    network.zero_grad()
    network(image).backward(direction)


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
