"""Choose the device of this process, and its number of threads."""

import os

import torch

from fsframework.core.errors import UserError


def pick_device(name: str | None) -> torch.device:
    """Return the device of a name; without a name the GPU if there is one, else the CPU. Limit torch's threads.

    Raises UserError if the device cannot be used.
    """
    limit_threads()
    if name is None:
        name = local_device() or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: cannot be used: {reason}; use cpu, cuda or cuda:N") from error


def limit_threads() -> None:
    """Limit torch's threads to the CPUs of this process, unless OMP_NUM_THREADS states a number.

    torch counts the machine's CPUs, and not what affinity and a container's quota leave of them.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        import joblib  # type: ignore[import-untyped]  # slow to import

        torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count()))


def local_device() -> str | None:
    """Return the name of this process's GPU under torchrun; None without torchrun or without a GPU."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or not torch.cuda.is_available():
        return None
    return f"cuda:{int(rank) % torch.cuda.device_count()}"
