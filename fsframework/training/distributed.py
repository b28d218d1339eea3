"""One training in several processes, as torchrun starts them, on one machine or on several.

    torchrun --nproc-per-node 2 -m fsframework run RECIPE

torchrun says in the environment who is who. Each process works on its share of every batch, gradients are averaged by
DistributedDataParallel, and the first process alone writes. Without torchrun there is one process, and nothing here
does anything.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from fsframework.core.errors import UserError

PATIENCE = timedelta(hours=1)  # while the first process aligns and embeds faces; one that ends is noticed at once


@dataclass(frozen=True)
class World:
    """The processes of a training."""

    rank: int = 0  # of this process, from 0
    size: int = 1
    device: torch.device | str = "cpu"  # where what is exchanged must lie

    @property
    def first(self) -> bool:
        """Whether this process writes, and tells people how far it is."""
        return self.rank == 0

    def share(self, batch_size: int, place: str) -> int:
        """How many pairs of a batch are this process's. Raises UserError, with `place`, if they cannot be shared."""
        if batch_size % self.size:
            fits = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
            advice = f"use {' or '.join(map(str, fits[-8:]))} processes, or another batch_size"
            raise UserError(
                f"{place}: {batch_size} pairs cannot be shared among {self.size} processes evenly; {advice}"
            )
        return batch_size // self.size

    def all_reduce_mean(self, values: Sequence[float]) -> list[float]:
        """Each value's mean over all processes; one that is not finite anywhere is so everywhere."""
        if self.size == 1:
            return list(values)
        added = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(added)
        return [float(value) / self.size for value in added.cpu()]

    def barrier(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            self.all_reduce_mean([0.0])

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all processes."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        return DistributedDataParallel(module, find_unused_parameters=True)


ALONE = World()


class DistributedBatchSampler(Sampler[int]):
    """The numbers of one process's pairs in [start, stop): its share of every batch, in order."""

    def __init__(self, world: World, batch_size: int, start: int, stop: int) -> None:
        self.batches = range(start, stop, batch_size)
        self.mine = batch_size // world.size
        self.offset = world.rank * self.mine

    def __len__(self) -> int:
        return len(self.batches) * self.mine

    def __iter__(self) -> Iterator[int]:
        return (first + self.offset + place for first in self.batches for place in range(self.mine))


def no_sync(module: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """A block in which gradients are added up but not yet averaged, unless it is the last of a step."""
    if is_last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Meet the other processes, if torchrun started any.

    Raises
    ------
    UserError
        They cannot be met, or one of them ended while others worked on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the other processes cannot be met: {_first_line(error)}; start them by torchrun") from error
    world = World(distributed.get_rank(), distributed.get_world_size(), device)
    try:
        yield world
    except (distributed.DistError, RuntimeError) as error:
        if not _is_about_others(error):
            raise
        said = "another process of this training ended, and so does this one"
        advice = "its own line says why, unless it was killed; --resume goes on from the last checkpoint"
        raise UserError(f"process {world.rank}: {said}; {advice}") from error
    finally:
        distributed.destroy_process_group()


def leave() -> NoReturn:
    """End this process, successfully, without what Python does at its end.

    Gloo's threads outlive the group as long as DistributedDataParallel was used, and one of them may let go of a tensor
    just then, which aborts the process: rarely, and after all work is done (pytorch/pytorch, pull request 179291).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _is_about_others(error: Exception) -> bool:
    text = str(error)
    marks = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Broken pipe", "ProcessGroup")
    return isinstance(error, distributed.DistError) or any(mark in text for mark in marks)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
