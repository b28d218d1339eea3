"""Adam (Kingma and Ba, arXiv:1412.6980; decoupled weight decay: Loshchilov and Hutter, arXiv:1711.05101)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

THERE, BACK = (0, 2, 3, 1), (0, 3, 1, 2)  # from (O, C, H, W) to the order in memory, and back
LARGE = 1 << 20  # numbers of a weight whose gradient is worth freeing at once


class Adam(torch.optim.Adam):
    """torch's fused Adam, which on CPUs copies every weight that lies in channels-last order at each step: 93 ms
    instead of 27 for four layers of 1024 x 1024 x 3 x 3. Here it is shown such weights as they lie in memory.

    torch's walks weight and gradient side by side and is wrong where their orders differ; here a gradient is first put
    into the weight's order.

    Where the first beta is 0, as in FaceShifter's training, the mean of the gradients is the gradient itself. It then
    gets no memory, a quarter of what weights, gradients and both means take otherwise, and is neither read nor kept.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            parameters, lr=lr, betas=betas, weight_decay=weight_decay, decoupled_weight_decay=True, fused=True
        )

    def step(self, closure: Any = None) -> Any:
        """One step, as torch's."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._in_memory_order(), self._without_means():
            super().step()
        return loss

    @contextmanager
    def _in_memory_order(self) -> Iterator[None]:
        turned = []
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(parameter.grad)
            if parameter.grad is not None and _lies_last(parameter):
                turned.append(parameter)
        self._permute(turned, THERE)
        try:
            yield
        finally:
            self._permute(turned, BACK)

    @contextmanager
    def _without_means(self) -> Iterator[None]:
        """Show torch the gradient where it wants their mean and the first beta is 0: it writes the gradient there."""
        alone = [group for group in self.param_groups if group["betas"][0] == 0]
        shown = [each for group in alone for each in group["params"] if each.grad is not None]
        for parameter in shown:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)
            state["exp_avg"] = parameter.grad
        try:
            yield
        finally:
            for parameter in shown:
                del self.state[parameter]["exp_avg"]

    def _permute(self, parameters: list[nn.Parameter], order: tuple[int, ...]) -> None:
        for parameter in parameters:
            gradient, parameter.grad = parameter.grad, None
            parameter.data = parameter.data.permute(order)
            parameter.grad = None if gradient is None else gradient.permute(order)
            state = self.state.get(parameter, {})
            state |= {name: value.permute(order) for name, value in state.items() if value.dim() == len(order)}


def _lies_last(value: Tensor) -> bool:
    """Whether a tensor on a CPU lies in channels-last order and in no other."""
    if value.device.type != "cpu" or value.dim() != len(THERE) or value.is_contiguous():
        return False
    return value.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def stepping(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A step with the backward pass inside: large weights are updated as soon as their gradients are there.

    The gradients are then freed, so that never more than one is in memory; the numbers are those of a step afterwards.
    A backward pass that fails leaves some weights updated and others not.
    """
    groups = optimizer.param_groups
    everything = [group["params"] for group in groups]

    def update(number: int, parameter: Tensor) -> None:
        for place, group in enumerate(groups):
            group["params"] = [parameter] if place == number else []
        optimizer.step()
        parameter.grad = None
        for group, whole in zip(groups, everything, strict=True):
            group["params"] = whole

    hooks = [
        parameter.register_post_accumulate_grad_hook(partial(update, number))
        for number, parameters in enumerate(everything)
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
