"""Adam (Kingma and Ba, arXiv:1412.6980; decoupled weight decay: Loshchilov and Hutter, arXiv:1711.05101)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

THERE, BACK = (0, 2, 3, 1), (0, 3, 1, 2)  # from (O, C, H, W) to the order in memory, and back


class Adam(torch.optim.Adam):
    """torch's fused Adam, which on CPUs copies every weight that lies in channels-last order at each step: 93 ms
    instead of 27 for four layers of 1024 x 1024 x 3 x 3. Here it is shown such weights as they lie in memory.

    torch's walks weight and gradient side by side and is wrong where their orders differ; here a gradient is first put
    into the weight's order.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            parameters, lr=lr, betas=betas, weight_decay=weight_decay, decoupled_weight_decay=True, fused=True
        )

    def step(self, closure: Any = None) -> Any:
        """One step, as torch's."""
        with self._in_memory_order():
            return super().step(closure)

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
