"""An optimizer's state as named tensors, because checkpoints hold nothing else."""

from typing import Any

import torch
from torch import Tensor


def pack_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter: `PREFIX.NUMBER.NAME` -> tensor. Schedules set the learning rates."""
    packed = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            packed[f"{prefix}.{number}.{name}"] = torch.as_tensor(value)
    return packed


def unpack_optimizer(prefix: str, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Put back what `pack_optimizer` gave.

    Moments get their parameter's memory layout: fused kernels walk both side by side and do not look at strides.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith(f"{prefix}."):
            number, name = key.removeprefix(f"{prefix}.").split(".")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter, requires_grad=False).copy_(value)
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
