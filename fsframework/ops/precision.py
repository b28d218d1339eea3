"""Choose the precision in which networks compute."""

import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]  # auto: bf16 where the device multiplies it in hardware


@cache
def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware.

    Other devices emulate it, up to hundreds of times slower.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return False


def wants_bf16(precision: Precision, device: torch.device, label: str) -> bool:
    """Return whether a precision means bfloat16 on a device; print a note to stderr where that is emulated.

    `label` begins the note: the name of a stage or of an option.
    """
    if precision == "bf16" and not has_bf16(device):
        slow = f"{label}: this {device.type} has no bfloat16 and emulates it, which is very slow"
        print(f"note: {slow}; precision: auto avoids that", file=sys.stderr)
    return precision == "bf16" or (precision == "auto" and has_bf16(device))


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """Return a context of bfloat16 autocast, or one without effect if `bf16` is False."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast: operations keep the precision of their inputs.

    The meta device has no autocast.
    """
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
