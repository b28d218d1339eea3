"""How fast AEI-Net is: ours against the plain reference with the same weights, in one run.

    python -m fsf_benchmarks.speed --size 64 --width 0.5 --batch 8 --save

Prints images a second of a training step (both networks, hinge-gan, attribute, identity and reconstruction losses, and
the discriminator's turn) and of a swap, the ratio to the reference, the share of the machine's measured
matrix-multiply peak of the same precision, and the peak memory of a process that only does this. Rounds alternate
between the implementations, so that a drifting machine changes ratios little; figures are medians.
"""

import datetime
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fsf_benchmarks.plain_aei_net import PlainGenerator
from fsframework.components import Generator, Loss, Swapper
from fsframework.environment import environment
from fsframework.files import write_text
from fsframework.plugins import part
from fsframework.types import Batch, Faces, SwapResult

IMPLEMENTATIONS = ("plain fp32", "ours fp32", "ours bf16")


class Work:
    """One implementation, ready to be timed."""

    def __init__(self, name: str, size: int, width: float, batch: int, device: str) -> None:
        torch.manual_seed(0)
        identity = part("identity-encoders", "dlib-resnet").build()
        identity.load()
        attributes = part("attribute-encoders", "aei-attributes", width=width).build(size)
        generator = part("generators", "aad-generator", width=width).build(size, identity.dim, attributes.channels)
        plain = name.startswith("plain")
        painter = cast(Generator, PlainGenerator(generator) if plain else generator)
        self.swapper = Swapper(identity, attributes, painter).to(device)
        self.losses: list[Loss] = [
            part("losses", kind).build().to(device) for kind in ("hinge-gan", "attribute", "identity", "reconstruction")
        ]
        order = torch.contiguous_format if plain else torch.channels_last
        for module in (self.swapper, *self.losses):
            module.to(memory_format=order)  # type: ignore[call-overload]
        image = (torch.rand(batch, 3, size, size, device=device) * 2 - 1).contiguous(memory_format=order)
        self.z_id = F.normalize(torch.randn(batch, identity.dim, device=device))
        self.batch = Batch.of(Faces.of(image), Faces.of(image.flip(0).contiguous(memory_format=order)))
        self.precision = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=name.endswith("bf16"))
        trained = nn.ModuleList([self.swapper.attributes, self.swapper.generator])
        self.optimizers = [torch.optim.Adam(module.parameters(), fused=True) for module in (trained, self.losses[0])]

    def step(self) -> None:
        """One training step."""
        gan = self.losses[0]
        gan.requires_grad_(False)
        with self.precision:
            output = self.swapper(self.batch, self.z_id)
            total = sum(loss(self.batch, output, self.swapper) for loss in self.losses)
        self._descend(self.optimizers[0], total)  # type: ignore[arg-type]
        gan.requires_grad_(True)
        with self.precision:
            fake = SwapResult(output.image.detach(), output.image.detach(), output.z_id)
            critic = gan.critic(self.batch, fake)
        self._descend(self.optimizers[1], critic)

    @staticmethod
    def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def swap(self) -> None:
        """Swaps with embeddings at hand, as for the frames of a video."""
        with self.precision:
            self.swapper.eval()(self.batch, self.z_id)
        self.swapper.train()


def seconds(work: Callable[[], None], device: str) -> float:
    """How long a piece of work takes, once."""
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(dtype: torch.dtype, device: str, side: int = 2048) -> float:
    """FLOP/s of a large matrix product, the best of ten."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(10))  # type: ignore[arg-type,return-value]


def flops(work: Work, task: str) -> int:
    """Floating-point operations of convolutions and matrix products of one call."""
    counter = FlopCounterMode(display=False)
    with counter:
        getattr(work, task)()
    return counter.get_total_flops()


def peak_resident() -> int:
    """Bytes of memory that this process had at most. (On Linux getrusage also counts the parent's before the start.)"""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_memory(name: str, task: str, arguments: list[str]) -> float:
    """GB of a process of its own that does three rounds."""
    command = [sys.executable, "-m", "fsf_benchmarks.speed", "--only", f"{name}:{task}", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@click.command()
@click.option("--size", default=64, help="Side of the crops in pixels.")
@click.option("--width", default=0.5, help="Factor of the numbers of channels.")
@click.option("--batch", default=8, help="Images in a batch.")
@click.option("--rounds", default=7, help="Timed rounds, after two that are not.")
@click.option("--device", default="cpu", help="Where to compute.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
@click.option("--only", hidden=True, default=None)
def main(size: int, width: float, batch: int, rounds: int, device: str, save: bool, only: str | None) -> None:
    """Time AEI-Net against the plain reference with the same weights."""
    if only is not None:
        name, task = only.split(":")
        work = Work(name, size, width, batch, device)
        for _ in range(3):
            getattr(work, task)()
        click.echo((torch.cuda.max_memory_allocated() if device.startswith("cuda") else peak_resident()) / 1e9)
        return
    arguments = ["--size", str(size), "--width", str(width), "--batch", str(batch), "--device", device]
    peaks = {"fp32": peak(torch.float32, device), "bf16": peak(torch.bfloat16, device)}
    works = {name: Work(name, size, width, batch, device) for name in IMPLEMENTATIONS}
    rows = []
    for task in ("step", "swap"):
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds + 2):
            for name, work in works.items():
                times[name].append(seconds(getattr(work, task), device))
        done = flops(works["ours fp32"], task)
        for name in works:
            median = statistics.median(times[name][2:])
            ratios = [a / b for a, b in zip(times["plain fp32"][2:], times[name][2:], strict=True)]
            rows.append(
                {
                    "task": task,
                    "implementation": name,
                    "images_per_s": round(batch / median, 2),
                    "times_plain": round(statistics.median(ratios), 2),
                    "gflop_per_image": round(done / batch / 1e9, 2),
                    "share_of_peak_percent": round(100 * done / median / peaks[name.split()[1]], 1),
                    "peak_memory_gb": round(peak_memory(name, task, arguments), 2),
                }
            )
    show(rows, peaks)
    if save:
        command = f"python -m fsf_benchmarks.speed {' '.join(arguments)} --save"
        result = {
            "command": command,
            "date": datetime.date.today().isoformat(),
            **environment(torch.device(device)),
            "matmul_peak_gflops": {name: round(value / 1e9) for name, value in peaks.items()},
            "rows": rows,
        }
        folder = Path(__file__).parents[1] / "results"
        write_text(folder / f"speed_{size}px_{device.partition(':')[0]}.json", json.dumps(result, indent=2) + "\n")


def show(rows: list[dict], peaks: dict[str, float]) -> None:
    """Print the table."""
    table = Table(title=", ".join(f"matrix peak {name}: {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items()))
    for key in rows[0]:
        table.add_column(key.replace("_", " "), justify="left" if key in ("task", "implementation") else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
