"""The base class of each kind of component.

Three rules hold for all of them. The constructor receives the options, an instance of the inner pydantic class
`Options`. A constructor only allocates, so that everything builds on the meta device, and `load()` reads files. A
component has a `name`, lower-case-with-dashes, which recipes refer to.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    """Base of every component's `Options`: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class Component:
    """Base of all components. Plugins derive from its subclasses, one for each kind."""

    name: ClassVar[str]

    class Options(ComponentOptions):
        """No options."""

    options: ComponentOptions

    def load(self) -> None:
        """Read weights and other files, once, after construction. By default do nothing."""


class Network(Component, nn.Module):
    """A component that is a torch module."""

    traceable: ClassVar[bool] = False  # torch.compile captures `forward` in one graph, as `compile` and ONNX require

    def __init__(self, options: ComponentOptions) -> None:
        nn.Module.__init__(self)
        self.options = options

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return another network's weights as initial weights of this one, by name; by default unchanged.

        A stage's `init` calls it. Components override it where an option adds or splits channels, so that a network
        without the option can be trained further with it.
        """
        return dict(weights)


class Detector(Network):
    """Detects faces in frames."""

    certain_score: ClassVar[float] = 0.0  # faces with less are confirmed in turned copies of their surroundings

    def forward(self, frames: list[np.ndarray]) -> list[list[Face]]:
        """Return the faces of each frame, highest score first.

        Parameters
        ----------
        frames:
            (H, W, 3) uint8 RGB each; sizes may differ.
        """
        raise NotImplementedError


class IdentityEncoder(Network):
    """Embeds the identity of a face. Unless `trainable`, its weights are frozen and it stays in eval mode."""

    dim: int  # length of an embedding
    trainable: ClassVar[bool] = False  # stages may train it
    differentiable: ClassVar[bool] = True  # gradients flow back to the image
    metric: ClassVar[bool] = True  # embeddings have unit length, and their cosine is a similarity
    match_threshold: float | None = None  # minimum cosine of matching faces; measure by `fsf bench verification`

    def train(self, mode: bool = True) -> "IdentityEncoder":
        """Set the mode if the encoder is trainable, else eval mode, and return the encoder."""
        return super().train(mode and self.trainable)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return the embeddings (B, dim) of aligned crops, which the encoder crops and resizes to its input size."""
        raise NotImplementedError

    def required_match_threshold(self) -> float:
        """Return `match_threshold`. Raises UserError if the encoder has none."""
        if self.match_threshold is None:
            advice = "measure one with fsf bench verification and set the option match_threshold"
            if not self.metric:
                advice = "its embeddings have no metric; use another identity encoder"
            elif "match_threshold" not in type(self.options).model_fields:
                advice = "its class must declare one; measure it with fsf bench verification"
            raise UserError(f"{self.name}: has no match_threshold; {advice}")
        return self.match_threshold


class AttributeEncoder(Network):
    """Encodes the attributes of a face: pose, expression, lighting, background.

    Parameters
    ----------
    size:
        Side of the aligned crop in pixels.
    """

    channels: list[int]  # of the attribute maps, coarse to fine

    def __init__(self, options: ComponentOptions, size: int) -> None:
        super().__init__(options)
        self.size = size

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return the attribute maps (B, C_k, H_k, W_k), coarse to fine."""
        raise NotImplementedError


class Generator(Network):
    """Generates a face with a given identity and given attributes.

    Parameters
    ----------
    size:
        Side of the aligned crop in pixels.
    id_dim:
        Length of an embedding (`IdentityEncoder.dim`).
    att_channels:
        Channels of the attribute maps (`AttributeEncoder.channels`).
    """

    composes: ClassVar[bool] = False  # the swapper composes the image with the target by the mask, if there is one

    def __init__(self, options: ComponentOptions, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options)
        self.size = size

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return an image (B, 3, S, S) in [-1, 1]; an optional fourth channel, in [0, 1], becomes `SwapResult.mask`.

        If the class `composes`, the swap is the image where the mask is 1 and the target where it is 0, in training
        too. Otherwise the mask is only used for pasting and by losses and refiners.
        """
        raise NotImplementedError

    def maps(self, z_id: Tensor, z_att: list[Tensor]) -> list[Tensor]:
        """Return the attention maps (B, 1, H_k, W_k) in [0, 1], coarse to fine; by default none."""
        return []

    def enroll(self, z_id: Tensor, persons: Tensor) -> None:
        """Enroll the people of the training data, before the first step. By default do nothing.

        Parameters
        ----------
        z_id:
            Embeddings (N, D) of all faces.
        persons:
            (N,) int64, the person of each face, numbered from 0; -1 where unknown.
        """

    def supports(self, z_id: Tensor, identity: IdentityEncoder) -> Tensor:
        """Return which embeddings (B, D) belong to a person that can be generated: (B,) bool. By default all.

        Parameters
        ----------
        z_id:
            Embeddings by `identity`.
        identity:
            The swapper's encoder, whose `match_threshold` decides whether two embeddings match.
        """
        return torch.ones(len(z_id), dtype=torch.bool, device=z_id.device)


class Refiner(Network):
    """Refines a coarse swap.

    Parameters
    ----------
    size:
        Side of the aligned crop in pixels.
    """

    learns: bool = True  # it needs training; the swapper omits it until a stage has trained it

    def __init__(self, options: ComponentOptions, size: int) -> None:
        super().__init__(options)
        self.size = size

    def forward(self, coarse: SwapResult, batch: SwapBatch, swapper: "Swapper") -> Tensor:
        """Return the refined image (B, 3, S, S) in [-1, 1]. It may call `swapper.coarse`."""
        raise NotImplementedError


class Loss(Network):
    """A training loss. Its own parameters, such as a discriminator's, are trained by the loss `critic`.

    `network` names the component whose frozen network computes the loss, unless an option names it. Metrics of the
    same network are marked as trained against.
    """

    network: ClassVar[str | None] = None
    asks_identity: ClassVar[bool] = False  # it compares embeddings of the swapper's identity encoder
    reads_swap: bool = True  # it depends on the swap; a stage without such a loss generates none

    class Options(ComponentOptions):
        weight: float = Field(1.0, ge=0, description="Weight of this loss in the sum.")
        start: int = Field(0, ge=0, description="Training step from which this loss is used.")

    options: Options

    def forward(self, batch: SwapBatch, output: SwapResult, swapper: "Swapper") -> Tensor:
        """Return the unweighted loss, a scalar."""
        raise NotImplementedError

    def critic(self, batch: SwapBatch, output: SwapResult) -> Tensor:
        """Return the loss of this module's own parameters, a scalar; `output` is detached. Called if it has any."""
        raise NotImplementedError


class Dataset(Component):
    """A collection of aligned crops, from which the framework draws pairs.

    `load()` is called before any other method.

    Parameters
    ----------
    size:
        Side of the aligned crops in pixels.
    detector:
        The recipe's detector (a `fsframework.core.part.Part`), for data sets of images that are not aligned.
    split:
        "train", "test" or "all": which people. Train and test have no person in common.
    """

    def __init__(self, options: ComponentOptions, size: int, detector: Any, split: str) -> None:
        self.options = options
        self.size = size
        self.detector = detector
        self.split = split

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at an index; the same one at every call."""
        raise NotImplementedError

    @property
    def is_closed_set(self) -> bool:
        """Return whether test images show people of the training images, which reports then state."""
        return False

    def names(self) -> list[str]:
        """Return `Sample.name` of every face, in order, if possible without reading images."""
        return [self[index].name for index in range(len(self))]

    def people(self) -> list[str | None]:
        """Return `Sample.person` of every face, in order, if possible without reading images."""
        return [self[index].person for index in range(len(self))]

    def persons(self) -> np.ndarray:
        """Return the person's number of every face (N,) int64, in order of first appearance; -1 where unknown.

        By default it is computed from `people`. Large data sets override this to avoid millions of strings.
        """
        numbers: dict[str, int] = {}
        return np.array(
            [-1 if person is None else numbers.setdefault(person, len(numbers)) for person in self.people()],
            dtype=np.int64,
        )

    def weights(self) -> np.ndarray | None:
        """Return the relative frequency of every face as a training target (N,) float64; None: all alike, by default.

        An epoch has as many targets as there are faces. With weights, face i is a target N * w_i / sum(w) times on
        average over epochs, rounded up or down in each; a weight of 0 excludes a face. Sources are drawn uniformly.
        """
        return None

    def pairs(self) -> list[tuple[int, int]]:
        """Return the data set's pairs of source and target indices, for `evaluation.pairs: data`; none by default."""
        return []

    def next_frame(self, index: int) -> int | None:
        """Return the index of the next frame of a video, or the previous one for the last; None for images."""
        return None

    def target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the sample as a training target. Data sets that alter targets override this."""
        return self[index]

    @property
    def is_reversible(self) -> bool:
        """Return whether `reversed_target` is available, after `prepare` or `restore`."""
        return False

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the sample with the face of another person, and the sample's own image as `ground_truth`.

        `valid_mask` is True everywhere. Used by `pairs.reversed` of a stage, if the data set `is_reversible`.
        """
        raise NotImplementedError

    def ground_truth_swap(self, source: int, target: int) -> Sample | None:
        """Return the ground truth: the target's image with the source's face; None if unknown, as for photographs.

        For a sample and itself it is that sample.
        """
        return None

    def expected(self, quantity: str, source: int, target: int) -> np.ndarray | None:
        """Return the true value of an estimator's quantity in `ground_truth_swap(source, target)`, one row of a batch.

        None where it is unknown.
        """
        return None

    def prepare(self, swapper: "Swapper") -> dict[str, np.ndarray]:
        """Prepare a stage, such as by measuring every face, and return the state to save with the run."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore the state that `prepare` returned, in this or in an earlier process."""


class Estimator(Network):
    """Estimates a quantity from aligned crops.

    `quantity` names it: `pose_deg` (B, 3) yaw, pitch, roll in degrees; `landmarks68` (B, 68, 2) crop pixels;
    `mask` (B, 1, S, S) in [0, 1]; `expression` (B, D). Rows of NaN mark failures.
    """

    quantity: ClassVar[str]

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return the quantity, a row for each face."""
        raise NotImplementedError


class MetricInfo(NamedTuple):
    """Unit, direction and meaning of a metric, for tables and reports."""

    unit: str  # "%", "deg", "" for plain numbers
    better: Literal["higher", "lower"]
    meaning: str  # a sentence


class Benchmark(Network):
    """Measures swaps, batch by batch. One instance measures the method and the baselines in turn.

    If the options have a data set `data`, the same pairs are swapped with its targets. A wrapper there that names no
    data set wraps the recipe's.
    """

    metrics: ClassVar[dict[str, MetricInfo]]  # by name, the keys of the returned dictionary
    standalone: ClassVar[bool] = False  # it measures the code or the machine by `measure`, not a run's swaps
    fails: ClassVar[str] = "A metric of the pair is not a finite number."  # the definition of a failed pair
    # The pairs: the recipe's, each target with itself, or each target with another image of the same identity.
    pairing: ClassVar[Literal["recipe", "self", "same_identity"]] = "recipe"

    def measure_batch(self, batch: SwapBatch, swap: SwapResult, faces: Dataset) -> dict[str, Any]:
        """Return a batch's values for `combine`: for each metric (B,), one value for each pair, NaN where it failed.

        Parameters
        ----------
        batch, swap:
            Pairs and their swaps, on the CPU or a device.
        faces:
            The data set of the swapped people; its original images are the gallery.
        """
        raise NotImplementedError

    def combine(self, parts: Sequence[dict[str, Any]], faces: Dataset) -> dict[str, np.ndarray | float]:
        """Return the metrics by name: arrays (n,), one value for each pair in order, or a number for all pairs.

        By default the batches' values are concatenated.

        Parameters
        ----------
        parts:
            The results of `measure_batch`, in order.
        faces:
            As in `measure_batch`.
        """
        return {key: np.concatenate([_column(key, part[key]) for part in parts]) for key in parts[0]}

    def forward(self, swaps: Iterable[tuple[SwapBatch, SwapResult]], faces: Dataset) -> dict[str, np.ndarray | float]:
        """Return the metrics of batches of swaps: `measure_batch` of each, then `combine`."""
        return self.combine([self.measure_batch(batch, swap, faces) for batch, swap in swaps], faces)

    def measure(self, device: torch.device) -> dict[str, Any]:
        """Run a standalone benchmark and return what `fsf bench NAME` prints: {"rows": [{...}, ...], ...}."""
        raise NotImplementedError

    def label(self, trained_against: str | None) -> str:
        """Return the heading of the metrics, given the component that the method was trained against, if any."""
        return self.name


def _column(key: str, values: Tensor | np.ndarray) -> np.ndarray:
    column = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if column.ndim != 1:
        contract = f"measure_batch must return {key} as (B,), one value for each pair, unless combine is overridden"
        raise ValueError(f"{contract}; it returns {column.shape}")
    return column


class Model(NamedTuple):
    """A trained method in one file, written by `fsf export` and registered by `register_models`; not a component."""

    name: str
    file: Path
    sha256: str | None  # 64 hexadecimal digits; None: unknown
