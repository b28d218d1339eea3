"""Triton kernels for what torch does slowly on GPUs: when they can be used, and what they share.

Triton comes with torch where torch knows GPUs. A kernel is compiled when it is first needed, within seconds, and kept
in the user's cache folder by Triton itself. Every caller has a way in plain torch beside it, which
`FSF_BLOCK_KERNELS=triton` (or `all`) takes.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

LAST = torch.channels_last
TYPES = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS = 1056  # that sum, at least: eight for each of 132 multiprocessors
OLDEST = (8, 0)  # compute capability: the first with bfloat16


def usable(*tensors: Tensor) -> bool:
    """Whether kernels can work on these tensors."""
    return all(value.is_cuda and value.dtype in TYPES for value in tensors) and _has_triton()


def _has_triton() -> bool:
    """Whether there is Triton for this GPU. torch's compiler asks once and writes the answer down."""
    return _found()


# What torch.compiler.assume_constant_result does, but for importing the compiler, which doubles the time of a start.
_has_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _found() -> bool:
    blocked = os.environ.get("FSF_BLOCK_KERNELS", "").split(",")
    if "triton" in blocked or "all" in blocked or torch.cuda.get_device_capability() < OLDEST:
        return False
    return find_spec("triton") is not None


def shared(tiles: int, groups: int) -> tuple[int, int]:
    """How sums over tiles are shared among programs: tiles of a program, and programs, for each of some groups."""
    steps = -(-tiles // -(-PROGRAMS // groups))
    return steps, -(-tiles // steps)


def on_device_of(value: Tensor) -> AbstractContextManager[object]:
    """A block whose kernels are launched on the device of a tensor. On CPUs Triton's interpreter needs none."""
    return torch.cuda.device(value.device) if value.is_cuda else nullcontext()


def empty_last(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """An empty tensor (B, C, H, W) in channels-last order, on the device and by default in the type of another."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=LAST)
