"""Choose the device of this process."""

import os

import torch

from fsframework.core.errors import UserError


def pick_device(name: str | None) -> torch.device:
    """The device of that name; without a name the GPU if there is one. Raises UserError if it cannot be used."""
    if name is None:
        name = local_device() or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: cannot be used: {str(error).splitlines()[0]}") from error


def local_device() -> str | None:
    """The name of the GPU that torchrun means this process to use; None without torchrun or without a GPU."""
    place = os.environ.get("LOCAL_RANK")
    if place is None or not torch.cuda.is_available():
        return None
    return f"cuda:{int(place) % torch.cuda.device_count()}"
