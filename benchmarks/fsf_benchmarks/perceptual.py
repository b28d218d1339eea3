"""LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018)."""

import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from fsframework.core.components import Benchmark, ComponentOptions, Dataset, MetricInfo
from fsframework.core.types import SwapBatch, SwapResult
from fsframework.utils.weights import below, fill_published, load_state


class Perceptual(Benchmark):
    """How far a picture is from itself after a swap onto itself, as people see it: LPIPS; lower is better.

    The package lpips brings what was learned from people's judgements, and not the network below it, which is
    torchvision's: download its file yourself (alexnet-owt-7be5be79.pth for `alex`) and name it.
    """

    name = "lpips"
    pairing = "self"
    metrics: ClassVar = {"lpips": MetricInfo("", "lower", "LPIPS of a picture and itself after the swap; 0 is equal.")}

    class Options(ComponentOptions):
        weights: Path = Field(description="State dict of torchvision's network, .pth or .safetensors.")
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Hash that the file of weights must have."
        )
        network: Literal["alex", "vgg", "squeeze"] = Field("alex", description="Which of LPIPS's networks.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        import lpips  # type: ignore[import-untyped]  # brings torchvision's models, for which no other command waits

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks torchvision for no weights in words that are out of date
            self.net: Any = lpips.LPIPS(net=options.network, pnet_rand=True, verbose=False)

    def load(self) -> None:
        """Read the network's weights. Raises UserError if they are missing or of another network."""
        path = self.options.weights
        state = below("features", load_state(path, self.options.sha256))
        # LPIPS has the layers of torchvision's `features` in slices, under the numbers that they have there.
        named = {f"{cut}.{name}": state[name] for cut, _, name in self._layers() if name in state}
        fill_published(self.net.net, named, f"{path}: is not torchvision's network for {self.options.network}")

    def _layers(self) -> list[tuple[str, str, str]]:
        """The trunk's tensors: the slice, a dot, and the name that torchvision has."""
        return [name.partition(".") for name in self.net.net.state_dict()]

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        return {"lpips": self.net(swap.image, batch.ground_truth).flatten()}
