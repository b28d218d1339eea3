"""A step's work on a GPU, recorded once and replayed.

At small sizes a step is some thousands of kernels that take less time than Python takes to launch them. A recording
(torch.cuda.CUDAGraph) launches them all at once. What is replayed is what was recorded: the same kernels on the same
memory. Values that change must lie in tensors that stay where they are; Python does not run again.
"""

import random
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

WARM_UPS = 3  # calls before the recording: libraries choose their kernels and get their memory


class Recorded:
    """Work that is done as it is for the first calls, then recorded, and from then on replayed.

    Random numbers that are drawn on the GPU differ from call to call, and `torch.manual_seed` holds for them. Work that
    draws others, or waits for the GPU, cannot be recorded: a line on standard error says so, and it goes on as it is.

    Parameters
    ----------
    work:
        Takes nothing and returns a tensor, which the next call may overwrite.
    device:
        The GPU that does it.
    """

    def __init__(self, work: Callable[[], Tensor], device: torch.device) -> None:
        self.work, self.device = work, device
        self.stream = torch.cuda.Stream(device)
        self.calls = 0
        self.recording: tuple[torch.cuda.CUDAGraph, Tensor] | None = None  # and what a replay's result is written to

    def __call__(self) -> Tensor:
        """Do it once."""
        with torch.cuda.device(self.device):
            return self._done()

    def _done(self) -> Tensor:
        self.calls += 1
        if self.calls == WARM_UPS + 1:
            self._record()
        if self.recording is not None:
            graph, result = self.recording
            graph.replay()
            return result
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = self.work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def _record(self) -> None:
        before = _random_states()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as the one that pins memory for batches, may go on meanwhile.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                result = self.work()
        except RuntimeError as error:
            torch.cuda.synchronize()
            reason = str(error).partition("\n")[0]
        else:
            if _random_states() == before:
                self.recording = graph, result
                return
            reason = "it draws random numbers on the CPU, which a replay would repeat"
        print(f"note: a step cannot be recorded: {reason}; it runs as it is", file=sys.stderr)


def _random_states() -> tuple[object, ...]:
    """Where the CPU's generators of random numbers are."""
    numpys = np.random.get_state(legacy=False)
    return random.getstate(), repr(numpys), torch.random.get_rng_state().numpy().tobytes()


def recordable(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer be recorded: its learning rate becomes a tensor, which `keep_rates` sets."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["capturable"] = True
        group["rate"] = torch.tensor(float(group["lr"]), device=device)
        group["lr"] = group["rate"]


def keep_rates(optimizer: torch.optim.Optimizer) -> None:
    """Write the learning rates that a schedule has set into the tensors that were recorded."""
    for group in optimizer.param_groups:
        group["rate"].fill_(group["lr"])
        group["lr"] = group["rate"]
