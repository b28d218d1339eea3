"""The base class of each kind of component, and `Swapper`, which assembles four of them.

Three rules hold for all of them. Options arrive in the constructor, as the inner pydantic class `Options`. A
constructor only allocates, so that everything builds on the meta device; `load()` reads files. A component has a
`name`, lower-case-with-dashes, by which recipes call it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fsframework.core.errors import UserError
from fsframework.core.types import Face, FaceBatch, Sample, SwapBatch, SwapResult

if TYPE_CHECKING:
    from fsframework.core.swapper import Swapper


class ComponentOptions(BaseModel):
    """Base of every component's `Options`: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class Component:
    """What every component has. Plugins derive from the kinds below, not from this."""

    name: ClassVar[str]

    class Options(ComponentOptions):
        """No options."""

    options: ComponentOptions

    def load(self) -> None:
        """Read weights and other files, once, after construction. By default there is nothing to read."""


class Network(Component, nn.Module):
    """A component that is a torch module."""

    traceable: ClassVar[bool] = False  # torch.compile captures its forward in one graph, as `compile` and ONNX need

    def __init__(self, options: ComponentOptions) -> None:
        nn.Module.__init__(self)
        self.options = options


class Detector(Network):
    """Finds faces. `device` moves follow torch; a detector without tensors ignores them."""

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Faces of each frame, best first.

        Parameters
        ----------
        frames:
            (H, W, 3) uint8 RGB each; sizes may differ.
        """
        raise NotImplementedError


class IdentityEncoder(Network):
    """Says who a face is. Unless it is `trainable`, its weights never train and it never leaves eval mode."""

    dim: int  # length of an embedding
    trainable: ClassVar[bool] = False  # a stage may train it
    differentiable: ClassVar[bool] = True  # gradients reach the image
    metric: ClassVar[bool] = True  # embeddings have unit length and their cosine means likeness
    match_threshold: float | None = None  # cosine from which two faces match, by `fsf bench verification`

    def train(self, mode: bool = True) -> "IdentityEncoder":
        """Stays in eval mode whatever is asked for, unless it is trainable."""
        return super().train(mode and self.trainable)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Embeddings (B, dim). Crops and resizes the aligned crops by itself."""
        raise NotImplementedError

    def required_match_threshold(self) -> float:
        """Return `match_threshold`. Raises UserError if the encoder has none."""
        if self.match_threshold is None:
            what = "measure one with fsf bench verification and set the option match_threshold"
            if not self.metric:
                what = "its embeddings have no metric; use another identity encoder"
            elif "match_threshold" not in type(self.options).model_fields:
                what = "its class must declare one; measure it with fsf bench verification"
            raise UserError(f"{self.name}: has no match_threshold; {what}")
        return self.match_threshold


class AttributeEncoder(Network):
    """Says how a face is shown: pose, expression, light, background.

    Parameters
    ----------
    size:
        Side of the aligned crop in pixels.
    """

    channels: list[int]  # of the maps, coarse to fine

    def __init__(self, options: ComponentOptions, size: int) -> None:
        super().__init__(options)
        self.size = size

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Maps (B, C_k, H_k, W_k), coarse to fine."""
        raise NotImplementedError


class Generator(Network):
    """Paints a face with a given identity and given attributes.

    Parameters
    ----------
    size:
        Side of the aligned crop in pixels.
    id_dim:
        Length of an embedding, as the identity encoder declares it.
    att_channels:
        Channels of the attribute maps, as the attribute encoder declares them.
    """

    def __init__(self, options: ComponentOptions, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options)
        self.size = size

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """An image (B, 3, S, S) in [-1, 1]; a fourth channel, in [0, 1], becomes `SwapResult.mask`."""
        raise NotImplementedError

    def maps(self, z_id: Tensor, z_att: list[Tensor]) -> list[Tensor]:
        """Attention maps (B, 1, H_k, W_k) in [0, 1], coarse to fine; none where the method has none."""
        return []

    def enroll(self, z_id: Tensor, persons: Tensor) -> None:
        """Meet the people of the training data, before the first step. By default there is nothing to keep.

        Parameters
        ----------
        z_id:
            Embeddings (N, D) of all faces.
        persons:
            (N,) int64, who each shows, numbered from 0; -1 where nobody knows.
        """

    def supports(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
        """Return which embeddings (B, D) show a person that it can paint: (B,) bool. By default every person.

        Parameters
        ----------
        z_id:
            Embeddings by `identity`.
        identity:
            The encoder beside it, whose `match_threshold` separates people.
        """
        return torch.ones(len(z_id), dtype=torch.bool, device=z_id.device)


class Refiner(Network):
    """Improves a coarse swap.

    Parameters
    ----------
    size:
        Side of the aligned crop in pixels.
    """

    learns: bool = True  # it is of no use, and left out, until a stage has trained it

    def __init__(self, options: ComponentOptions, size: int) -> None:
        super().__init__(options)
        self.size = size

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: "Swapper") -> Tensor:
        """The better image (B, 3, S, S). May call `swapper.coarse`."""
        raise NotImplementedError


class Loss(Network):
    """A number to make small. Parameters of its own, such as a discriminator's, are trained by `critic`.

    `network` names the component whose frozen network judges the swaps, if that is none of the options: what is
    measured with the same network afterwards is marked so.
    """

    network: ClassVar[str | None] = None
    asks_identity: ClassVar[bool] = False  # it judges by the swapper's own identity encoder

    class Options(ComponentOptions):
        weight: float = Field(1.0, ge=0, description="Factor of this loss in the sum.")
        start: int = Field(0, ge=0, description="Training step at which this loss sets in.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: "Swapper") -> Tensor:
        """The unweighted loss, a scalar."""
        raise NotImplementedError

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """The loss of the loss's own parameters, a scalar; `output` is detached. Called if there are any."""
        raise NotImplementedError


class Dataset(Component):
    """A collection of aligned crops. It yields faces; the framework makes the pairs.

    `load()` comes before everything else that is asked of it.

    Parameters
    ----------
    size:
        Side of the aligned crops in pixels.
    detector:
        The recipe's detector (a `fsframework.core.part.Part`), for data sets that hold raw pictures.
    split:
        "train", "test" or "all": which people. No person is in both train and test.
    """

    def __init__(self, options: ComponentOptions, size: int, detector: Any, split: str) -> None:
        self.options = options
        self.size = size
        self.detector = detector
        self.split = split

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        """The face at a place; the same one at every call."""
        raise NotImplementedError

    @property
    def is_closed_set(self) -> bool:
        """Whether its test pictures show the people of its training pictures, so that figures must say so."""
        return False

    def names(self) -> list[str]:
        """`Sample.name` of every face, in order, without reading images where that can be avoided."""
        return [self[index].name for index in range(len(self))]

    def people(self) -> list[str | None]:
        """`Sample.person` of every face, in order, without reading images where that can be avoided."""
        return [self[index].person for index in range(len(self))]

    def persons(self) -> np.ndarray:
        """The person of every face (N,) int64, numbered in the order in which they first appear; -1 where unknown.

        By default from `people`. Data sets of millions of faces know it without so many texts.
        """
        numbers: dict[str, int] = {}
        return np.array(
            [-1 if person is None else numbers.setdefault(person, len(numbers)) for person in self.people()],
            dtype=np.int64,
        )

    def pairs(self) -> list[tuple[int, int]]:
        """The data set's own pairs, places of source and target, for `evaluation.pairs: data`; none by default."""
        return []

    def next_frame(self, index: int) -> int | None:
        """The frame of the same video that follows a frame, or precedes the last one; None for a picture."""
        return None

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """The face as a training target. Data sets that alter targets (occluders) override this."""
        return self[index]

    def ground_truth_swap(self, source: int, target: int) -> Sample | None:
        """The right swap: the target's picture with the source's face; None where nobody knows, as with photographs.

        Of a picture and itself it is the picture.
        """
        return None

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """What a perfect estimator of a quantity says of `swapped(source, target)`, one row of its answer.

        None where it is not known.
        """
        return None

    def prepare(self, swapper: "Swapper") -> dict[str, np.ndarray]:
        """Work done once when a stage starts, such as measuring every face. What it returns is saved with the run."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take what `prepare` returned, in this or in an earlier process."""


class Estimator(Network):
    """Reads a quantity from aligned crops.

    `quantity` says which, with its unit: `pose_deg` (B, 3) yaw, pitch, roll; `landmarks68` (B, 68, 2) crop pixels;
    `mask` (B, 1, S, S); `expression` (B, D). Rows of NaN mean that it failed.
    """

    quantity: ClassVar[str]

    def forward(self, faces: FaceBatch) -> Tensor:
        """The quantity, a row for each face."""
        raise NotImplementedError


class MetricInfo(NamedTuple):
    """What a benchmark's number is: read by tables, reports and people."""

    unit: str  # "%", "deg", "" for plain numbers
    better: Literal["higher", "lower"]
    meaning: str  # a sentence


class Benchmark(Network):
    """Measures swaps, batch by batch. One instance measures the method and the baselines in turn, batch after batch.

    If its options have a `data`, a data set, then the swaps are of that one: of the same pairs, with what it does to
    targets. A data set there that wraps another one and names none wraps the recipe's.
    """

    metrics: ClassVar[dict[str, MetricInfo]]  # by the keys of what a call returns
    standalone: ClassVar[bool] = False  # it measures the code or the machine by `measure`, not a run's swaps
    fails: ClassVar[str] = "A figure of the pair is no finite number."  # what it means that a pair failed
    # Pairs that it measures: the recipe's, each target with itself, or with another image of the same identity.
    pairing: ClassVar[Literal["recipe", "self", "same_identity"]] = "recipe"

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        """Return what `combine` needs of a batch: by name of a metric (B,), a value for each pair, NaN where it failed.

        Parameters
        ----------
        batch, swap:
            Pairs and their swaps, on the CPU or a device.
        faces:
            The data set whose people are swapped: all its original images are the gallery.
        """
        raise NotImplementedError

    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        """Return the metrics by name: arrays (n,), one value for each pair in order, or numbers of all pairs.

        By default the batches' values one after the other.

        Parameters
        ----------
        parts:
            What `measure_batch` returned of each batch, in order.
        faces:
            As there.
        """
        return {key: np.concatenate([_column(key, part[key]) for part in parts]) for key in parts[0]}

    def forward(self, swaps: Iterable[tuple[SwapBatch, SwapResult]], faces: Dataset) -> dict[str, np.ndarray | float]:
        """Return the metrics of batches of swaps: `measure_batch` of each, then `combine`."""
        return self.combine([self.measure_batch(batch, swap, faces) for batch, swap in swaps], faces)

    def measure(self, device: torch.device) -> dict[str, Any]:
        """Return the results of a `standalone` benchmark for `fsf bench NAME`: {"rows": [{...}, ...], ...}."""
        raise NotImplementedError

    def label(self, trained_against: str | None) -> str:
        """The heading of its figures, given the name of a component whose network was trained against."""
        return self.name


def _column(key: str, values: Tensor | np.ndarray) -> np.ndarray:
    column = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if column.ndim != 1:
        contract = f"measure_batch must return {key} as (B,), a value for each pair, where combine is not overridden"
        raise ValueError(f"{contract}; it returns {column.shape}")
    return column


class Model(NamedTuple):
    """A trained method in one file, as `fsf export` writes it. No component: plugins bring it by `register_models`."""

    name: str
    file: Path
    sha256: str | None  # 64 hexadecimal digits; None: it is not known
