"""Data-parallel training in several processes, started by torchrun on one machine or several.

    torchrun --nproc-per-node 2 -m fsframework run RECIPE

torchrun sets rank and world size in the environment. Each process computes its part of every batch, gradients are
averaged by DistributedDataParallel, and only the first process writes files. Without torchrun there is one process, and
all functions here do nothing.
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

PATIENCE = timedelta(
    hours=1
)  # the first process may align and embed faces for long; ended processes are detected at once


@dataclass(frozen=True)
class World:
    """The processes of a training, and the rank of this one."""

    rank: int = 0  # index of this process, from 0
    size: int = 1
    device: torch.device | str = "cpu"  # device of exchanged tensors

    @property
    def first(self) -> bool:
        """Return whether this process writes files and prints progress."""
        return self.rank == 0

    def share(self, batch_size: int, option: str) -> int:
        """Return the pairs of a batch for each process. Raise UserError, with `option`, if they are not divisible."""
        if batch_size % self.size:
            divisors = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
            advice = f"use {' or '.join(map(str, divisors[-8:]))} processes, or another batch_size"
            raise UserError(
                f"{option}: {batch_size} pairs cannot be divided evenly among {self.size} processes; {advice}"
            )
        return batch_size // self.size

    def all_reduce_mean(self, values: Sequence[float]) -> list[float]:
        """Return each value's mean over all processes; values that are not finite in one process are so in the mean."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return [float(value) / self.size for value in sums.cpu()]

    def barrier(self) -> None:
        """Wait until all processes call this."""
        if self.size > 1:
            self.all_reduce_mean([0.0])

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """Return the module, wrapped by DistributedDataParallel in several processes if it has trained parameters."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        return DistributedDataParallel(module, find_unused_parameters=True)


ALONE = World()


class DistributedBatchSampler(Sampler[int]):
    """Yields the pair numbers of one process in [start, stop): its part of every batch, in order."""

    def __init__(self, world: World, batch_size: int, start: int, stop: int) -> None:
        self.batches = range(start, stop, batch_size)
        self.per_process = batch_size // world.size
        self.offset = world.rank * self.per_process

    def __len__(self) -> int:
        return len(self.batches) * self.per_process

    def __iter__(self) -> Iterator[int]:
        return (first + self.offset + position for first in self.batches for position in range(self.per_process))


def no_sync(module: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Return a context that accumulates gradients without averaging, unless it is the last backward pass."""
    if is_last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the process group of torchrun and yield the world; without torchrun, yield `ALONE`.

    Raises
    ------
    UserError
        The group cannot be joined, or another process ended during training.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the process group cannot be joined: {_first_line(error)}; start all processes by torchrun"
        ) from error
    world = World(distributed.get_rank(), distributed.get_world_size(), device)
    try:
        yield world
    except (distributed.DistError, RuntimeError) as error:
        if not _is_communication_error(error):
            raise
        problem = "another process of this training ended, so this one ends, too"
        advice = "see its own error, unless it was killed; --resume continues from the last checkpoint"
        raise UserError(f"process {world.rank}: {problem}; {advice}") from error
    finally:
        distributed.destroy_process_group()


def leave() -> NoReturn:
    """End this process with status 0, without Python's finalisation.

    After DistributedDataParallel was used, Gloo's threads outlive the group. One of them may free a tensor during
    finalisation, which rarely aborts the process after all work is done (pytorch/pytorch, pull request 179291).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _is_communication_error(error: Exception) -> bool:
    text = str(error)
    marks = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Broken pipe", "ProcessGroup")
    return isinstance(error, distributed.DistError) or any(mark in text for mark in marks)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
