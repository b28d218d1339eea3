"""Asynchronous steps: pending loss values, and the time of steps."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from fsframework.data.collate import SwapPixels


class PendingStep:
    """A step that was launched on a device, and a copy of its loss values."""

    def __init__(self, step: int, group: list[SwapPixels], names: list[str], values: Tensor) -> None:
        self.step, self.group, self.names = step, group, names
        # Copied, because a later step may overwrite them.
        self._values = torch.empty_like(values, device="cpu", pin_memory=values.is_cuda)
        self._values.copy_(values, non_blocking=True)
        self._done = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    def losses(self) -> list[float]:
        """Wait for the step and return its losses in the order of `names`."""
        if self._done is not None:
            self._done.synchronize()
        losses: list[float] = self._values.tolist()
        return losses


class StepTimer:
    """Measures the rate of training, and the fraction of time spent waiting for data."""

    def __init__(self) -> None:
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0
        self._now: Callable[[], float] = time.perf_counter

    def start(self) -> None:
        self._started = self._now()

    def data_ready(self) -> None:
        self._ready = self._now()

    def stop(self, images: int) -> None:
        self.images += images
        self.seconds += self._now() - self._started
        self.waiting += self._ready - self._started

    def read(self) -> dict[str, float]:
        """Return the images per second and the fraction of waiting since the last call."""
        rates = {
            "images_per_s": round(self.images / self.seconds, 2),
            "data_share": round(self.waiting / self.seconds, 4),
        }
        self.images, self.seconds, self.waiting = 0, 0.0, 0.0
        return rates
