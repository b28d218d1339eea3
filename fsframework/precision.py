"""The precision that networks compute in."""

import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; others emulate it, up to hundreds of times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block that autocast does not touch: the device's operations keep the precision of their inputs.

    The meta device has no autocast.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
