"""Adam (Kingma and Ba, arXiv:1412.6980) with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

TO_MEMORY, FROM_MEMORY = (0, 2, 3, 1), (0, 3, 1, 2)  # (O, C, H, W) to channels-last memory order, and back
LARGE = 1 << 20  # elements from which a weight is updated during the backward pass


class Adam(torch.optim.Adam):
    """Fused Adam of torch, without copies of channels-last weights.

    On CPUs torch's version copies such weights at each step: 93 ms instead of 27 for four layers of 1024 x 1024 x 3 x
    3. Here they are permuted to their memory order first.

    torch's version iterates over weight and gradient in parallel and is wrong if their memory orders differ. Here a
    gradient is first copied to the weight's order.

    Where the first beta is 0, as in FaceShifter's training, the mean of the gradients equals the gradient. It is then
    not stored, which saves a quarter of the memory of weights, gradients and both means.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            parameters, lr=lr, betas=betas, weight_decay=weight_decay, decoupled_weight_decay=True, fused=True
        )

    def step(self, closure: Any = None) -> Any:
        """Take one step and return the loss of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._in_memory_order(), self._without_means():
            super().step()
        return loss

    @contextmanager
    def _in_memory_order(self) -> Iterator[None]:
        permuted = []
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(parameter.grad)
            if parameter.grad is not None and _is_channels_last(parameter):
                permuted.append(parameter)
        self._permute(permuted, TO_MEMORY)
        try:
            yield
        finally:
            self._permute(permuted, FROM_MEMORY)

    @contextmanager
    def _without_means(self) -> Iterator[None]:
        """Use the gradient's memory as `exp_avg` where the first beta is 0: torch writes the gradient itself there."""
        groups = [group for group in self.param_groups if group["betas"][0] == 0]
        parameters = [parameter for group in groups for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)
            state["exp_avg"] = parameter.grad
        try:
            yield
        finally:
            for parameter in parameters:
                del self.state[parameter]["exp_avg"]

    def _permute(self, parameters: list[nn.Parameter], order: tuple[int, ...]) -> None:
        for parameter in parameters:
            gradient, parameter.grad = parameter.grad, None
            parameter.data = parameter.data.permute(order)
            parameter.grad = None if gradient is None else gradient.permute(order)
            state = self.state.get(parameter, {})
            state |= {name: value.permute(order) for name, value in state.items() if value.dim() == len(order)}


def _is_channels_last(value: Tensor) -> bool:
    """Return whether a CPU tensor is contiguous in channels-last order only."""
    if value.device.type != "cpu" or value.dim() != len(TO_MEMORY) or value.is_contiguous():
        return False
    return value.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def stepping(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Take an optimizer step during the backward pass in this block: large weights are updated first.

    A large weight is updated as soon as its gradient is complete, and the gradient is then freed. So at most one large
    gradient is in memory. The result equals a step after the backward pass. If the backward pass fails, only some of
    the weights are updated.
    """
    groups = optimizer.param_groups
    all_parameters = [group["params"] for group in groups]

    def update(number: int, parameter: Tensor) -> None:
        for index, group in enumerate(groups):
            group["params"] = [parameter] if index == number else []
        optimizer.step()
        parameter.grad = None
        for group, parameters in zip(groups, all_parameters, strict=True):
            group["params"] = parameters

    hooks = [
        parameter.register_post_accumulate_grad_hook(partial(update, number))
        for number, parameters in enumerate(all_parameters)
        for parameter in parameters
        if parameter.requires_grad and parameter.numel() >= LARGE
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    optimizer.step()


def pack_optimizer(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of every parameter as `PREFIX.NUMBER.NAME` -> tensor. Schedules set the learning rates."""
    packed = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            packed[f"{prefix}.{number}.{name}"] = torch.as_tensor(value)
    return packed


def unpack_optimizer(prefix: str, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Restore the state that `pack_optimizer` returned.

    Moments get their parameter's memory layout, because fused kernels iterate over both without regard to strides.
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
