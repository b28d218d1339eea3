"""A plugin with one small component of most kinds. Tests put this folder on the path, where it is as if installed."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fsframework import hookimpl
from fsframework.core.components import (
    AttributeEncoder,
    Benchmark,
    ComponentOptions,
    Dataset,
    Generator,
    IdentityEncoder,
    Loss,
    Refiner,
)
from fsframework.core.part import Part, use
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult


class ToyIdentity(IdentityEncoder):
    """The mean colour, repeated."""

    name = "toy-identity"

    class Options(ComponentOptions):
        dim: int = Field(default=6, ge=1, description="Length of an embedding.")

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.dim = options.dim


class ToyAttributes(AttributeEncoder):
    """One convolution."""

    name = "toy-attributes"

    class Options(ComponentOptions):
        width: int = Field(default=4, ge=1, description="Channels that are declared.")
        returned: int = Field(default=4, ge=1, description="Channels that are returned.")

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        self.channels = [options.width]
        self.layer = nn.Conv2d(3, options.returned, 1)

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        return [self.layer(faces.image)]


class ToyGenerator(Generator):
    """One convolution of the maps, and the embedding as a colour."""

    name = "toy-generator"

    class Options(ComponentOptions):
        colours: int = Field(default=3, description="Channels of what is painted.")

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        if size > 512:
            raise ValueError(f"toy-generator paints up to 512 px, not {size}")
        self.colour = nn.Linear(id_dim, options.colours)
        self.layer = nn.Conv2d(att_channels[0], options.colours, 1)

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        return self.layer(z_att[0]) + self.colour(z_id)[:, :, None, None]


class ToyRefiner(Refiner):
    """The mean of the coarse swap and of a second draft, whose source is the target."""

    name = "toy-refiner"

    class Options(ComponentOptions):
        crop: int = Field(default=0, ge=0, description="Rows that are cut off.")

    options: Options

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: Swapper) -> Tensor:
        again = swapper.coarse(SwapBatch.of(batch.target, batch.target)).image
        return ((coarse.image + again) / 2)[:, :, self.options.crop :]


class ToyLoss(Loss):
    """Always the same."""

    name = "toy-loss"

    class Options(Loss.Options):
        margin: float = Field(default=0.5, description="Nothing.")
        broken: bool = Field(default=False, description="Fail when built.")

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.broken:
            raise RuntimeError("it was asked to fail\nin two lines")

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: Swapper) -> Tensor:
        return torch.ones(())


class ToyData(Dataset):
    """No faces."""

    name = "toy-data"

    class Options(ComponentOptions):
        count: int = Field(default=3, ge=1, description="How many.")

    def __len__(self) -> int:
        return 0


class ToyWrapper(Dataset):
    """Another data set."""

    name = "toy-wrapper"

    class Options(ComponentOptions):
        data: Annotated[Part, use("datasets")] = Field(description="What is wrapped.")
        share: float = Field(default=0.1, gt=0, le=1, description="How much of it.")


class ToyBenchmark(Benchmark):
    """Measures nothing."""

    name = "toy-benchmark"

    class Options(ComponentOptions):
        judge: Annotated[Part, use("identity-encoders")] | None = Field(default=None, description="Who judges.")


@hookimpl
def register_identity_encoders() -> list[type[IdentityEncoder]]:
    return [ToyIdentity]


@hookimpl
def register_attribute_encoders() -> list[type[AttributeEncoder]]:
    return [ToyAttributes]


@hookimpl
def register_generators() -> list[type[Generator]]:
    return [ToyGenerator]


@hookimpl
def register_refiners() -> list[type[Refiner]]:
    return [ToyRefiner]


@hookimpl
def register_losses() -> list[type[Loss]]:
    return [ToyLoss]


@hookimpl
def register_datasets() -> list[type[Dataset]]:
    return [ToyData, ToyWrapper]


@hookimpl
def register_benchmarks() -> list[type[Benchmark]]:
    return [ToyBenchmark]
