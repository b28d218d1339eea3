"""Decide when Triton kernels can be used on GPUs, and launch them.

Triton comes with torch's GPU builds. A kernel is compiled at its first use, within seconds, and Triton keeps it in the
user's cache folder. Every caller has a fallback in plain torch, which `FSF_BLOCK_KERNELS=triton` (or `all`) selects.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

LAST = torch.channels_last
TYPES = (torch.float32, torch.bfloat16, torch.float16)
PROGRAMS = 1056  # fewest programs of a reduction: eight for each of 132 multiprocessors
OLDEST = (8, 0)  # lowest compute capability with bfloat16


def usable(*tensors: Tensor) -> bool:
    """Return whether Triton kernels support these tensors."""
    return all(value.is_cuda and value.dtype in TYPES for value in tensors) and _has_triton()


def _has_triton() -> bool:
    """Return whether Triton supports this GPU.

    torch's compiler evaluates this once and treats the result as a constant.
    """
    return _found()


# As torch.compiler.assume_constant_result, without importing the compiler, which doubles the start-up time.
_has_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _found() -> bool:
    blocked = os.environ.get("FSF_BLOCK_KERNELS", "").split(",")
    if "triton" in blocked or "all" in blocked or torch.cuda.get_device_capability() < OLDEST:
        return False
    return find_spec("triton") is not None


def shared(tiles: int, groups: int) -> tuple[int, int]:
    """Split a reduction of tiles in some groups; return (tiles per program, programs per group)."""
    steps = -(-tiles // -(-PROGRAMS // groups))
    return steps, -(-tiles // steps)


def on_device_of(value: Tensor) -> AbstractContextManager[object]:
    """Return a context whose kernels are launched on the device of a tensor.

    On CPUs, Triton's interpreter needs no device.
    """
    return torch.cuda.device(value.device) if value.is_cuda else nullcontext()


def empty_last(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return an empty tensor (B, C, H, W) in channels-last order, with device and default dtype of `like`."""
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=LAST)
