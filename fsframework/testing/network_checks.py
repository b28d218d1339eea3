"""The contracts of components that see, encode, paint, refine and judge: torch modules in a swapper or beside it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.components import Loss
from fsframework.core.swapper import Swapper
from fsframework.core.types import Face, SwapBatch, SwapResult
from fsframework.data.samples import LANDMARKS, SIZE, portrait
from fsframework.testing.checks import COMPONENT, META_RUN, NETWORK, ROWWISE, TRACED, gradients
from fsframework.testing.samples import SmallIdentity, batch_of
from fsframework.testing.subject import CPU, ROWS, Check, Subject, shapes

NEAR = 0.35  # of the distance between the eyes: how far a detector's landmarks may be from mtcnn's, on average


def detects(subject: Subject) -> None:
    """It finds the portrait's face, best first, in the form that `Face` describes."""
    with subject.running("forward([portrait])"):
        answer = subject.component([portrait()])
    contract = "forward must return a list of Face values for each frame"
    if not isinstance(answer, list) or len(answer) != 1 or not isinstance(answer[0], list):
        raise subject.broken(contract, f"of one frame it returns {_kind(answer)}")
    (faces,) = answer
    if not faces:
        raise subject.broken(
            "a detector must find the face of scikit-image's portrait (skimage.data.astronaut())", "it finds none"
        )
    for face in faces:
        if not isinstance(face, Face):
            raise subject.broken(contract, f"there is {_kind(face)} among them")
        if np.shape(face.box) != (4,) or np.shape(face.landmarks) != (5, 2):
            raise subject.broken(
                "a face must have a box (4,) and landmarks (5, 2)",
                f"they are {np.shape(face.box)} and {np.shape(face.landmarks)}",
            )
        if not 0 <= face.score <= 1:
            raise subject.broken("a face's score must be from 0 to 1", f"it is {face.score}")
    if [face.score for face in faces] != sorted((face.score for face in faces), reverse=True):
        raise subject.broken("faces must come best first", f"scores are {[face.score for face in faces]}")
    error = np.linalg.norm(np.asarray(faces[0].landmarks) - LANDMARKS, axis=1).mean()
    eyes = float(np.linalg.norm(LANDMARKS[1] - LANDMARKS[0]))
    if error > NEAR * eyes:
        raise subject.broken(
            "the best face must have the portrait's landmarks in frame pixels: eye, eye, nose, mouth corner, mouth "
            "corner, the viewer's left first",
            f"they are {error:.0f} px off on average, and {NEAR * eyes:.0f} are allowed",
        )


def detects_in_batches(subject: Subject) -> None:
    """Frames of different sizes at once give what each gives alone, and nothing is found where nothing is."""
    frames = [portrait(), np.full((96, 160, 3), 128, np.uint8), portrait()[:300].copy()]
    with subject.running("forward of three frames of different sizes, one of them grey"):
        together = subject.component(frames)
        alone = [subject.component([frame])[0] for frame in frames]
    if [len(faces) for faces in together] != [len(faces) for faces in alone]:
        counts = f"{[len(faces) for faces in together]} and {[len(faces) for faces in alone]}"
        raise subject.broken("frames at once must give the faces that each gives alone", f"there are {counts}")
    for one, other in zip(chain(*together), chain(*alone), strict=True):
        if not np.allclose(one.landmarks, other.landmarks, atol=1.0):
            raise subject.broken("frames at once must give the faces that each gives alone", "landmarks differ")
    if together[1]:
        raise subject.broken("an empty list must be returned for a frame without faces", f"it finds {together[1][0]}")


class DetectorSubject(Subject):
    """A detector, shown frames."""

    kind = "detectors"

    def call(self, component: Any, rows: Sequence[int], device: torch.device) -> list[Tensor]:
        """The landmarks of the best face, for each row."""
        frames = [(portrait(), portrait()[:, ::-1].copy(), portrait()[:300].copy())[row] for row in rows]
        found = [faces[0].landmarks if faces else np.full((5, 2), np.nan) for faces in component(frames)]
        return [torch.from_numpy(np.stack(found).astype(np.float64))]


def embeds(subject: Subject) -> None:
    """Embeddings have the length that is declared."""
    dim = getattr(subject.component, "dim", None)
    if not isinstance(dim, int) or dim < 1:
        raise subject.broken("the encoder must declare dim, the length of an embedding", f"dim is {dim!r}")
    (z,) = subject.outputs
    if not isinstance(z, Tensor) or z.shape != (len(ROWS), dim):
        seen = _shape(z)
        raise subject.broken(
            f"forward must return embeddings (B, dim), ({len(ROWS)}, {dim}) here", f"it returns {seen}"
        )
    if subject.component.metric and not torch.allclose(z.float().norm(dim=1), torch.ones(len(z)), atol=1e-3):
        raise subject.broken(
            "embeddings must have unit length (F.normalize), unless the class says metric = False",
            f"their lengths are {', '.join(f'{value:.3g}' for value in z.norm(dim=1).tolist())}",
        )


def matches(subject: Subject) -> None:
    """Check `match_threshold`, a cosine in (-1, 1) where cosines compare faces; trainable encoders may have none."""
    encoder = subject.component
    threshold = getattr(encoder, "match_threshold", None)
    if threshold is None and (encoder.trainable or not encoder.metric):
        return
    if not encoder.metric:
        raise subject.broken(
            "an encoder with metric = False has no match_threshold; remove it", f"it declares {threshold!r}"
        )
    if not isinstance(threshold, float) or not -1 < threshold < 1:
        raise subject.broken(
            "an encoder whose cosines compare faces must declare match_threshold, a cosine in (-1, 1); measure it with "
            "fsf bench verification, or say metric = False",
            f"match_threshold is {threshold!r}",
        )


def stays_frozen(subject: Subject) -> None:
    """It never leaves eval mode, unless it is trainable."""
    encoder = subject.loaded()
    encoder.train()
    training = [name or "itself" for name, module in encoder.named_modules() if module.training]
    if training and not encoder.trainable:
        raise subject.broken(
            "an identity encoder that is not trainable must stay in eval mode when train() is called; do not override "
            "train, or say trainable = True",
            f"{training[0]} is in train mode",
        )


def embeds_differentiably(subject: Subject) -> None:
    """Gradients reach the image, where that is promised."""
    if not subject.component.differentiable:
        return
    faces = batch_of(ROWS).source
    image = faces.image.clone().requires_grad_(True)
    with subject.running("forward"):
        z = subject.component(replace(faces, image=image))
    (found,) = gradients(subject, [z[:, 0]], [image], "the image, unless the class says differentiable = False")
    if found is None or not bool(found.any()):
        raise subject.broken(
            "gradients must pass from the embedding to the image, unless the class says differentiable = False",
            "none arrives",
        )


class IdentitySubject(Subject):
    """An identity encoder, shown three faces."""

    kind = "identity-encoders"

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """The faces."""
        return (batch_of(rows, self.size).source.to(device),)


def encodes(subject: Subject) -> None:
    """Maps have the channels that are declared, coarse to fine."""
    maps, declared = subject.outputs, getattr(subject.component, "channels", None)
    if not isinstance(maps, list) or not all(isinstance(level, Tensor) and level.ndim == 4 for level in maps):
        raise subject.broken("forward must return a list of maps (B, C, H, W)", f"it returns {_kind(maps)}")
    if declared is None or [level.shape[1] for level in maps] != list(declared):
        raise subject.broken(
            "the encoder must declare the channels of its maps as self.channels, a list",
            f"it declares {declared} and returns {[level.shape[1] for level in maps]}",
        )
    sides = [level.shape[-1] for level in maps]
    if sides != sorted(sides):
        raise subject.broken("maps must come coarse to fine", f"their sides are {sides}")


def learns(subject: Subject) -> None:
    """Gradients reach every weight: weights that are never used break training on several GPUs."""
    made = subject.loaded()
    made.train().requires_grad_(True)
    parameters = dict(made.named_parameters())
    if not parameters:
        return
    outputs = subject.called(made, grad=True)
    found = gradients(subject, outputs, list(parameters.values()), "the weights")
    cut = [name for name, gradient in zip(parameters, found, strict=True) if gradient is None]
    few = isinstance(made, ClosedSetGenerator) and len(cut) < len(parameters)  # a batch shows some of the people
    if cut and not few:
        raise subject.broken(
            "gradients must reach every weight; remove weights that are not used, or register frozen ones as buffers",
            f"none reaches {cut[0]}" + (f" and {len(cut) - 1} more" if len(cut) > 1 else ""),
        )


class AttributeSubject(Subject):
    """An attribute encoder, shown three faces."""

    kind = "attribute-encoders"
    signature = ("size",)

    def arguments(self) -> tuple[int]:
        """The crops' side."""
        return (self.size,)

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """The faces."""
        return (batch_of(rows, self.size).target.to(device),)

    def call(self, component: Any, rows: Sequence[int], device: torch.device) -> Any:
        """The maps."""
        return component(*self.inputs(rows, device))


def paints(subject: Subject) -> None:
    """The picture has the right shape and range."""
    (painted,) = subject.outputs
    allowed = [(len(ROWS), channels, SIZE, SIZE) for channels in (3, 4)]
    if not isinstance(painted, Tensor) or tuple(painted.shape) not in allowed:
        seen = _shape(painted)
        raise subject.broken(
            f"forward must return a picture (B, 3, S, S), or (B, 4, S, S) with a mask, {allowed[0]} here",
            f"it returns {seen}",
        )
    in_range(subject, painted[:, :3], "the picture", -1)
    if painted.shape[1] == 4:
        in_range(subject, painted[:, 3:], "the mask, the fourth channel,", 0)


def in_range(subject: Subject, values: Tensor, what: str, low: int) -> None:
    """Raise ContractError unless values are finite and from `low` to 1."""
    least, most = float(values.min()), float(values.max())
    if not (low - 1e-3 <= least and most <= 1 + 1e-3):  # also where they are NaN
        end = "torch.tanh" if low < 0 else "torch.sigmoid"
        raise subject.broken(f"{what} must be from {low} to 1; end with {end}", f"it is from {least:.3g} to {most:.3g}")


def shows_maps(subject: Subject) -> None:
    """Attention maps, where there are any, are pictures of one channel; `supports` answers for every row."""
    made = subject.component
    assert isinstance(subject, GeneratorSubject)
    z_id, z_att = subject.inputs(ROWS, CPU)
    with torch.no_grad(), subject.running("maps or knows"):
        maps, known = made.maps(z_id, z_att), made.supports(z_id, subject.beside[0])
    for level in maps:
        if not isinstance(level, Tensor) or level.ndim != 4 or level.shape[:2] != (len(ROWS), 1):
            raise subject.broken("maps must return a list of maps (B, 1, H, W)", f"it returns {_kind(level)}")
        in_range(subject, level, "an attention map", 0)
    if not isinstance(known, Tensor) or known.dtype != torch.bool or known.shape != (len(ROWS),):
        raise subject.broken("knows must return (B,) bool", f"it returns {_kind(known)}")


class GeneratorSubject(Subject):
    """A generator, given what encoders make of three pairs."""

    kind = "generators"
    signature = ("size", "id_dim", "att_channels")

    def arguments(self) -> tuple[int, int, list[int]]:
        """The crops' side, and what the encoders beside it declare."""
        identity, attributes = self.beside
        return self.size, identity.dim, list(attributes.channels)

    @cached_property
    def beside(self) -> tuple[Any, Any]:
        """The encoders beside it."""
        return self.encoders()

    def loaded(self, seed: int = 0) -> Any:
        """A new one that has met the people of the samples."""
        made = super().loaded(seed)
        z_id, _ = self.inputs(range(3), CPU)
        with torch.no_grad(), self.running("enroll"):
            made.enroll(z_id, torch.arange(3))
        return made

    @torch.no_grad()
    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Embeddings of sources and maps of targets; of the embeddings, the length and not the direction is real."""
        identity, attributes = self.beside
        batch = batch_of(rows, self.size)
        z_id = identity(batch.source)
        if identity.metric:  # the three people are one woman
            z_id = torch.eye(3, identity.dim)[list(rows)]
        return z_id.to(device), [level.to(device) for level in attributes(batch.target)]


def refines(subject: Subject) -> None:
    """The picture has the right shape and range."""
    (image,) = subject.outputs
    if not isinstance(image, Tensor) or image.shape != (len(ROWS), 3, SIZE, SIZE):
        seen = _shape(image)
        raise subject.broken(
            f"forward must return a picture (B, 3, S, S), ({len(ROWS)}, 3, {SIZE}, {SIZE}) here", f"it returns {seen}"
        )
    in_range(subject, image, "the picture", -1)


class RefinerSubject(Subject):
    """A refiner, given coarse swaps of three pairs."""

    kind = "refiners"
    signature = ("size",)

    def arguments(self) -> tuple[int]:
        """The crops' side."""
        return (self.size,)

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Drafts, pairs, and the swapper."""
        batch, swapper = placed(self, rows, device)
        with torch.no_grad():
            return swapper.coarse(batch), batch, swapper


def judges(subject: Subject) -> None:
    """A finite number, without its weight."""
    (value,) = subject.outputs
    if not isinstance(value, Tensor) or value.shape != ():
        seen = _shape(value)
        raise subject.broken("a loss must return a scalar tensor, shape (); take the mean", f"it returns {seen}")
    if not bool(value.isfinite()):
        raise subject.broken("a loss must be finite", f"it is {float(value)}")
    twice = type(subject)(subject.cls, {**subject.given, "weight": 2 * subject.options.weight}, subject.networks)
    if not torch.equal(twice.outputs[0], value):
        raise subject.broken(
            "forward must return the loss without its weight, which the framework multiplies by", "it changes with it"
        )


def teaches(subject: Subject) -> None:
    """Gradients reach the swap, its mask, or what the swapper trains."""
    made = subject.loaded()
    made.requires_grad_(False)
    batch, swapper = placed(subject, ROWS, CPU)
    swapper.requires_grad_(True)
    output = swapper(batch)
    with subject.running("forward"):
        value = made(batch, output, swapper)
    wanted = [tensor for tensor in (output.image, output.coarse, output.mask) if tensor is not None]
    wanted += [weight for weight in swapper.parameters() if weight.requires_grad]
    found = gradients(subject, [value], wanted, "the swap")
    if all(gradient is None for gradient in found):
        raise subject.broken("gradients must pass from the loss to the swap", "none arrives")


def criticises(subject: Subject) -> None:
    """A loss with weights of its own trains them by `critic`."""
    made = subject.loaded()
    weights = {name: weight for name, weight in made.named_parameters() if weight.requires_grad}
    if not weights:
        return
    batch, swapper = placed(subject, ROWS, CPU)
    with torch.no_grad():
        output: SwapResult = swapper(batch)
        made(batch, output, swapper)
    contract = "a loss with weights must train them in critic(batch, output), or freeze them (requires_grad_(False))"
    if type(made).critic is Loss.critic:
        raise subject.broken(contract, f"it has {next(iter(weights))} and no critic")
    with subject.running("critic"):
        value = made.critic(batch, output)
    if not isinstance(value, Tensor) or value.shape != ():
        raise subject.broken("critic must return a scalar tensor", f"it returns {_kind(value)}")
    found = gradients(subject, [value], list(weights.values()), "the loss's own weights")
    cut = [name for name, gradient in zip(weights, found, strict=True) if gradient is None]
    if cut:
        raise subject.broken(contract, f"no gradient of critic reaches {cut[0]}")


def sums_over(subject: Subject) -> None:
    """The loss works for one pair, and does not depend on the order of pairs."""
    (one,) = subject.called(subject.component, (1,))
    if not isinstance(one, Tensor) or one.shape != () or not bool(one.isfinite()):
        raise subject.broken("the loss of a batch of one must be a finite scalar", f"it is {_kind(one)}")
    torch.manual_seed(9)
    with torch.no_grad(), subject.running("forward"):
        again = subject.call(subject.component, ROWS, CPU)
    if not torch.equal(again[0], subject.outputs[0]):
        return  # it draws at random, so the order cannot be told from chance
    (turned,) = subject.called(subject.component, (2, 0, 1))
    if not torch.allclose(turned.float(), subject.outputs[0].float(), rtol=1e-3, atol=1e-6):
        raise subject.broken(
            "a loss must not depend on the order of the batch",
            f"it is {float(subject.outputs[0]):.6g}, and {float(turned):.6g} in another order",
        )


class LossSubject(Subject):
    """A loss, given swaps of three pairs."""

    kind = "losses"

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Pairs, swaps, and the swapper."""
        batch, swapper = placed(self, rows, device)
        with torch.no_grad():
            return batch, swapper(batch), swapper


def placed(subject: Subject, rows: Sequence[int], device: torch.device) -> tuple[SwapBatch, Swapper]:
    """Pairs and a swapper on a device. Recognisers seldom run on the meta device; there a small one."""
    swapper = subject.swapper()
    if device.type == "meta":
        swapper.identity = SmallIdentity()
    return batch_of(rows, subject.size).to(device), swapper.to(device)


def estimates(subject: Subject) -> None:
    """A row for each face, of the shape that the quantity has."""
    quantity = getattr(subject.cls, "quantity", None)
    if not isinstance(quantity, str) or not quantity:
        raise subject.broken(
            'an estimator must declare what it reads, with its unit: quantity = "pose_deg"', f"quantity is {quantity!r}"
        )
    (found,) = subject.outputs
    known = {"pose_deg": (3,), "landmarks68": (68, 2), "mask": (1, SIZE, SIZE)}
    row = known.get(quantity)
    if not isinstance(found, Tensor) or len(found) != len(ROWS) or (row and tuple(found.shape[1:]) != row):
        wanted = f"(B, {', '.join(map(str, row))})" if row else "a row for each face"
        seen = _shape(found)
        raise subject.broken(f"forward must return {wanted} for {quantity}", f"of {len(ROWS)} faces it returns {seen}")


class EstimatorSubject(Subject):
    """An estimator, shown three faces."""

    kind = "estimators"

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """The faces."""
        return (batch_of(rows, self.size).target.to(device),)


def _shape(value: Any) -> str:
    """The shape of a tensor; of anything else what it is."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, list | tuple) and value and all(isinstance(each, Tensor) for each in value):
        return shapes(value)
    return f"{type(value).__name__} {value!r}"[:80]


DETECTOR = (*COMPONENT, *NETWORK[:2], Check("faces", detects), Check("frames", detects_in_batches))
IDENTITY = (
    *COMPONENT,
    Check("embedding", embeds),
    Check("threshold", matches),
    Check("frozen", stays_frozen),
    Check("gradient", embeds_differentiably),
    *NETWORK,
    *ROWWISE,
    TRACED,
)
ATTRIBUTES = (*COMPONENT, Check("maps", encodes), Check("gradient", learns), *NETWORK, *ROWWISE, META_RUN, TRACED)
GENERATOR = (
    *COMPONENT,
    Check("picture", paints),
    Check("attention", shows_maps),
    Check("gradient", learns),
    *NETWORK,
    *ROWWISE,
    META_RUN,
    TRACED,
)
REFINER = (*COMPONENT, Check("picture", refines), Check("gradient", learns), *NETWORK, *ROWWISE, META_RUN, TRACED)
LOSS = (
    *COMPONENT,
    Check("number", judges),
    Check("gradient", teaches),
    Check("critic", criticises),
    *NETWORK,
    Check("batch", sums_over),
)
ESTIMATOR = (*COMPONENT, Check("quantity", estimates), *NETWORK[:2], NETWORK[-1], *ROWWISE)
