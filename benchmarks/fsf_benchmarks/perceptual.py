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
    """Measure the perceptual distance (LPIPS) of an image and its self-reconstruction; lower is better.

    The package lpips includes the weights learned from human judgements, but not the backbone, which is torchvision's.
    Its file must be downloaded separately (alexnet-owt-7be5be79.pth for `alex`).
    """

    name = "lpips"
    pairing = "self"
    metrics: ClassVar = {
        "lpips": MetricInfo("", "lower", "LPIPS of a picture and its self-reconstruction; 0 is equal.")
    }

    class Options(ComponentOptions):
        weights: Path = Field(description="State dict of torchvision's backbone, .pth or .safetensors.")
        sha256: str | None = Field(
            default=None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )
        network: Literal["alex", "vgg", "squeeze"] = Field("alex", description="Backbone of LPIPS.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        import lpips  # type: ignore[import-untyped]  # imports torchvision's models, so imported on use

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips uses a deprecated argument of torchvision
            self.net: Any = lpips.LPIPS(net=options.network, pnet_rand=True, verbose=False)

    def load(self) -> None:
        """Load the backbone's weights. Raises UserError if they are missing or of another network."""
        path = self.options.weights
        state = below("features", load_state(path, self.options.sha256))
        # LPIPS groups the layers of torchvision's `features` in slices, under their original numbers.
        named = {f"{cut}.{name}": state[name] for cut, _, name in self._layers() if name in state}
        fill_published(self.net.net, named, f"{path}: is not torchvision's network for {self.options.network}")

    def _layers(self) -> list[tuple[str, str, str]]:
        """Return the backbone's tensors as (slice, ".", torchvision's name)."""
        return [name.partition(".") for name in self.net.net.state_dict()]

    @torch.no_grad()
    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        return {"lpips": self.net(swap.image, batch.ground_truth).flatten()}
