"""The precision that networks compute in."""

import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]  # auto: bf16 where the device multiplies it in hardware


@cache
def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; others emulate it, up to hundreds of times slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def wants_bf16(asked: Precision, device: torch.device, who: str) -> bool:
    """Whether a precision means bfloat16 on a device; a note on the error stream says where that is emulated.

    `who` begins the note: a stage's name, or an option's.
    """
    if asked == "bf16" and not has_bf16(device):
        slow = f"{who}: this {device.type} has no bfloat16 and emulates it, which is very slow"
        print(f"note: {slow}; precision: auto avoids that", file=sys.stderr)
    return asked == "bf16" or (asked == "auto" and has_bf16(device))


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """A block of mixed precision, or one that changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block that autocast does not touch: the device's operations keep the precision of their inputs.

    The meta device has no autocast.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
