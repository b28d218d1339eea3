"""Capture a training step on a GPU as a CUDA graph and replay it.

At small sizes a step consists of thousands of kernels that run faster than Python launches them. A graph
(torch.cuda.CUDAGraph) launches them all at once. A replay runs the same kernels on the same memory, and no Python.
Changing values must therefore be written into the captured tensors.
"""

import random
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

WARM_UPS = 3  # calls before capture, in which libraries select kernels and allocate memory


class Recorded:
    """A function that runs eagerly for the first calls, is then captured as a CUDA graph, and replayed.

    Random numbers of the GPU differ from call to call and follow `torch.manual_seed`. A function that draws random
    numbers on the CPU, or synchronises with the GPU, cannot be captured. Then a note is printed on standard error, and
    it keeps running eagerly.

    Parameters
    ----------
    work:
        Without parameters; returns a tensor, which the next call may overwrite.
    device:
        The GPU.
    """

    def __init__(self, work: Callable[[], Tensor], device: torch.device) -> None:
        self.work, self.device = work, device
        self.stream = torch.cuda.Stream(device)
        self.calls = 0
        self.recording: tuple[torch.cuda.CUDAGraph, Tensor] | None = None  # with the tensor that replays write to

    def __call__(self) -> Tensor:
        """Run the function once and return its tensor."""
        with torch.cuda.device(self.device):
            return self._run()

    def _run(self) -> Tensor:
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
            # Other threads, such as the one that pins memory of batches, may call CUDA during capture.
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
        print(f"note: a step cannot be recorded: {reason}; it runs without a CUDA graph", file=sys.stderr)


def _random_states() -> tuple[object, ...]:
    """Return the states of the CPU's random number generators: Python, numpy, torch."""
    numpy_state = np.random.get_state(legacy=False)
    return random.getstate(), repr(numpy_state), torch.random.get_rng_state().numpy().tobytes()


def recordable(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimizer capturable: store its learning rates in tensors, which `keep_rates` updates."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["capturable"] = True
        group["rate"] = torch.tensor(float(group["lr"]), device=device)
        group["lr"] = group["rate"]


def keep_rates(optimizer: torch.optim.Optimizer) -> None:
    """Write the learning rates of a schedule into the captured tensors."""
    for group in optimizer.param_groups:
        group["rate"].fill_(group["lr"])
        group["lr"] = group["rate"]
