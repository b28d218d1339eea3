"""The contracts of networks: detectors, encoders, generators, refiners, losses and estimators."""

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

NEAR = 0.35  # mean landmark distance to mtcnn's, relative to the eye distance, that a detector may have


def detects(subject: Subject) -> None:
    """Check that the detector finds the portrait's face, best first, as valid `Face` values."""
    with subject.running("forward([portrait])"):
        output = subject.component([portrait()])
    contract = "forward must return a list of Face values for each frame"
    if not isinstance(output, list) or len(output) != 1 or not isinstance(output[0], list):
        raise subject.broken(contract, f"for one frame it returns {_kind(output)}")
    (faces,) = output
    if not faces:
        raise subject.broken(
            "a detector must find the face of scikit-image's portrait (skimage.data.astronaut())", "it finds none"
        )
    for face in faces:
        if not isinstance(face, Face):
            raise subject.broken(contract, f"one of them is {_kind(face)}")
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
    """Check that frames in a batch return the same faces as alone, and none where there is no face."""
    frames = [portrait(), np.full((96, 160, 3), 128, np.uint8), portrait()[:300].copy()]
    with subject.running("forward of three frames of different sizes, one of them grey"):
        together = subject.component(frames)
        alone = [subject.component([frame])[0] for frame in frames]
    if [len(faces) for faces in together] != [len(faces) for faces in alone]:
        counts = f"{[len(faces) for faces in together]} and {[len(faces) for faces in alone]}"
        raise subject.broken("frames in a batch must return the same faces as alone", f"the counts are {counts}")
    for one, other in zip(chain(*together), chain(*alone), strict=True):
        if not np.allclose(one.landmarks, other.landmarks, atol=1.0):
            raise subject.broken("frames in a batch must return the same faces as alone", "landmarks differ")
    if together[1]:
        raise subject.broken("an empty list must be returned for a frame without faces", f"it finds {together[1][0]}")


class DetectorSubject(Subject):
    """A detector, applied to frames of the portrait."""

    kind = "detectors"

    def call(self, component: Any, rows: Sequence[int], device: torch.device) -> list[Tensor]:
        """Return the landmarks (n, 5, 2) of the best face of each row's frame, NaN where none is found."""
        frames = [(portrait(), portrait()[:, ::-1].copy(), portrait()[:300].copy())[row] for row in rows]
        landmarks = [faces[0].landmarks if faces else np.full((5, 2), np.nan) for faces in component(frames)]
        return [torch.from_numpy(np.stack(landmarks).astype(np.float64))]


def embeds(subject: Subject) -> None:
    """Check that embeddings have the declared length."""
    dim = getattr(subject.component, "dim", None)
    if not isinstance(dim, int) or dim < 1:
        raise subject.broken("the encoder must declare dim, the length of an embedding", f"dim is {dim!r}")
    (z,) = subject.outputs
    if not isinstance(z, Tensor) or z.shape != (len(ROWS), dim):
        actual = _shape(z)
        raise subject.broken(
            f"forward must return embeddings (B, dim), ({len(ROWS)}, {dim}) here", f"it returns {actual}"
        )
    if subject.component.metric and not torch.allclose(z.float().norm(dim=1), torch.ones(len(z)), atol=1e-3):
        raise subject.broken(
            "embeddings must have unit length (F.normalize), unless the class declares metric = False",
            f"their lengths are {', '.join(f'{value:.3g}' for value in z.norm(dim=1).tolist())}",
        )


def matches(subject: Subject) -> None:
    """Check that `match_threshold` is a cosine in (-1, 1) if cosines compare faces; trainable encoders may lack it."""
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
            "fsf bench verification, or declare metric = False",
            f"match_threshold is {threshold!r}",
        )


def stays_frozen(subject: Subject) -> None:
    """Check that the encoder stays in eval mode, unless it is trainable."""
    encoder = subject.loaded()
    encoder.train()
    training = [name or "itself" for name, module in encoder.named_modules() if module.training]
    if training and not encoder.trainable:
        raise subject.broken(
            "an identity encoder that is not trainable must stay in eval mode when train() is called; do not override "
            "train, or declare trainable = True",
            f"{training[0]} is in train mode",
        )


def embeds_differentiably(subject: Subject) -> None:
    """Check that gradients reach the image, if the encoder declares `differentiable`."""
    if not subject.component.differentiable:
        return
    faces = batch_of(ROWS).source
    image = faces.image.clone().requires_grad_(True)
    with subject.running("forward"):
        z = subject.component(replace(faces, image=image))
    (gradient,) = gradients(subject, [z[:, 0]], [image], "the image, unless the class declares differentiable = False")
    if gradient is None or not bool(gradient.any()):
        raise subject.broken(
            "gradients must pass from the embedding to the image, unless the class declares differentiable = False",
            "none arrives",
        )


class IdentitySubject(Subject):
    """An identity encoder, applied to three faces."""

    kind = "identity-encoders"

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Return the source faces."""
        return (batch_of(rows, self.size).source.to(device),)


def encodes(subject: Subject) -> None:
    """Check that maps have the declared channels, and are ordered coarse to fine."""
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


def trains_every_weight(subject: Subject) -> None:
    """Check that gradients reach every weight, because unused weights break training on several GPUs."""
    network = subject.loaded()
    network.train().requires_grad_(True)
    parameters = dict(network.named_parameters())
    if not parameters:
        return
    outputs = subject.called(network, grad=True)
    grads = gradients(subject, outputs, list(parameters.values()), "the weights")
    cut = [name for name, gradient in zip(parameters, grads, strict=True) if gradient is None]
    few = isinstance(network, ClosedSetGenerator) and len(cut) < len(
        parameters
    )  # a batch holds only some of the people
    if cut and not few:
        raise subject.broken(
            "gradients must reach every weight; remove weights that are not used, or register frozen ones as buffers",
            f"none reaches {cut[0]}" + (f" and {len(cut) - 1} more" if len(cut) > 1 else ""),
        )


class AttributeSubject(Subject):
    """An attribute encoder, applied to three faces."""

    kind = "attribute-encoders"
    signature = ("size",)

    def arguments(self) -> tuple[int]:
        """Return the crop size."""
        return (self.size,)

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Return the target faces."""
        return (batch_of(rows, self.size).target.to(device),)

    def call(self, component: Any, rows: Sequence[int], device: torch.device) -> Any:
        """Return the attribute maps, coarse to fine."""
        return component(*self.inputs(rows, device))


def generates_image(subject: Subject) -> None:
    """Check that the generated image, and its mask if any, have the right shape and range."""
    (image,) = subject.outputs
    allowed = [(len(ROWS), channels, SIZE, SIZE) for channels in (3, 4)]
    if not isinstance(image, Tensor) or tuple(image.shape) not in allowed:
        actual = _shape(image)
        raise subject.broken(
            f"forward must return an image (B, 3, S, S), or (B, 4, S, S) with a mask, {allowed[0]} here",
            f"it returns {actual}",
        )
    in_range(subject, image[:, :3], "the image", -1)
    if image.shape[1] == 4:
        in_range(subject, image[:, 3:], "the mask, the fourth channel,", 0)


def in_range(subject: Subject, values: Tensor, what: str, low: int) -> None:
    """Raise ContractError unless values are finite and from `low` to 1."""
    least, most = float(values.min()), float(values.max())
    if not (low - 1e-3 <= least and most <= 1 + 1e-3):  # also true for NaN
        end = "torch.tanh" if low < 0 else "torch.sigmoid"
        raise subject.broken(f"{what} must be from {low} to 1; end with {end}", f"it is from {least:.3g} to {most:.3g}")


def returns_attention(subject: Subject) -> None:
    """Check that attention maps, if any, have one channel and `supports` returns a value for each row."""
    generator = subject.component
    assert isinstance(subject, GeneratorSubject)
    z_id, z_att = subject.inputs(ROWS, CPU)
    with torch.no_grad(), subject.running("maps or supports"):
        maps, supported = generator.maps(z_id, z_att), generator.supports(z_id, subject.beside[0])
    for level in maps:
        if not isinstance(level, Tensor) or level.ndim != 4 or level.shape[:2] != (len(ROWS), 1):
            raise subject.broken("maps must return a list of maps (B, 1, H, W)", f"it returns {_kind(level)}")
        in_range(subject, level, "an attention map", 0)
    if not isinstance(supported, Tensor) or supported.dtype != torch.bool or supported.shape != (len(ROWS),):
        raise subject.broken("supports must return (B,) bool", f"it returns {_kind(supported)}")


class GeneratorSubject(Subject):
    """A generator, applied to embeddings and attribute maps of three pairs."""

    kind = "generators"
    signature = ("size", "id_dim", "att_channels")

    def arguments(self) -> tuple[int, int, list[int]]:
        """Return the crop size, the embedding's length and the channels of the attribute maps."""
        identity, attributes = self.beside
        return self.size, identity.dim, list(attributes.channels)

    @cached_property
    def beside(self) -> tuple[Any, Any]:
        """Return the identity and attribute encoders."""
        return self.encoders()

    def loaded(self, seed: int = 0) -> Any:
        """Return a new generator that has enrolled the people of the samples."""
        generator = super().loaded(seed)
        z_id, _ = self.inputs(range(3), CPU)
        with torch.no_grad(), self.running("enroll"):
            generator.enroll(z_id, torch.arange(3))
        return generator

    @torch.no_grad()
    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Return embeddings of the sources and attribute maps of the targets.

        If embeddings are compared by their cosine, orthogonal unit vectors replace them, because the samples show one
        woman.
        """
        identity, attributes = self.beside
        batch = batch_of(rows, self.size)
        z_id = identity(batch.source)
        if identity.metric:  # the samples' three people are one woman
            z_id = torch.eye(3, identity.dim)[list(rows)]
        return z_id.to(device), [level.to(device) for level in attributes(batch.target)]


def refines(subject: Subject) -> None:
    """Check that the refined image has the right shape and range."""
    (image,) = subject.outputs
    if not isinstance(image, Tensor) or image.shape != (len(ROWS), 3, SIZE, SIZE):
        actual = _shape(image)
        raise subject.broken(
            f"forward must return an image (B, 3, S, S), ({len(ROWS)}, 3, {SIZE}, {SIZE}) here", f"it returns {actual}"
        )
    in_range(subject, image, "the image", -1)


class RefinerSubject(Subject):
    """A refiner, applied to coarse swaps of three pairs."""

    kind = "refiners"
    signature = ("size",)

    def arguments(self) -> tuple[int]:
        """Return the crop size."""
        return (self.size,)

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Return the coarse swaps, the pairs and the swapper."""
        batch, swapper = on_device(self, rows, device)
        with torch.no_grad():
            return swapper.coarse(batch), batch, swapper


def returns_scalar(subject: Subject) -> None:
    """Check that the loss is a finite scalar, not multiplied by its weight."""
    (value,) = subject.outputs
    if not isinstance(value, Tensor) or value.shape != ():
        actual = _shape(value)
        raise subject.broken("a loss must return a scalar tensor, shape (); take the mean", f"it returns {actual}")
    if not bool(value.isfinite()):
        raise subject.broken("a loss must be finite", f"it is {float(value)}")
    twice = type(subject)(subject.cls, {**subject.given, "weight": 2 * subject.options.weight}, subject.networks)
    if not torch.equal(twice.outputs[0], value):
        raise subject.broken(
            "forward must return the loss without its weight, which the framework multiplies by", "it changes with it"
        )


def passes_gradients(subject: Subject) -> None:
    """Check that gradients reach the swap, its mask, or the swapper's trainable weights."""
    loss = subject.loaded()
    loss.requires_grad_(False)
    batch, swapper = on_device(subject, ROWS, CPU)
    swapper.requires_grad_(True)
    output = swapper(batch)
    with subject.running("forward"):
        value = loss(batch, output, swapper)
    inputs = [tensor for tensor in (output.image, output.coarse, output.mask) if tensor is not None]
    inputs += [weight for weight in swapper.parameters() if weight.requires_grad]
    grads = gradients(subject, [value], inputs, "the swap")
    if all(gradient is None for gradient in grads):
        raise subject.broken("gradients must pass from the loss to the swap", "none arrives")


def trains_critic(subject: Subject) -> None:
    """Check that a loss with weights of its own trains them by `critic`."""
    loss = subject.loaded()
    weights = {name: weight for name, weight in loss.named_parameters() if weight.requires_grad}
    if not weights:
        return
    batch, swapper = on_device(subject, ROWS, CPU)
    with torch.no_grad():
        output: SwapResult = swapper(batch)
        loss(batch, output, swapper)
    contract = "a loss with weights must train them in critic(batch, output), or freeze them (requires_grad_(False))"
    if type(loss).critic is Loss.critic:
        raise subject.broken(contract, f"it has {next(iter(weights))} and no critic")
    with subject.running("critic"):
        value = loss.critic(batch, output)
    if not isinstance(value, Tensor) or value.shape != ():
        raise subject.broken("critic must return a scalar tensor", f"it returns {_kind(value)}")
    grads = gradients(subject, [value], list(weights.values()), "the loss's own weights")
    cut = [name for name, gradient in zip(weights, grads, strict=True) if gradient is None]
    if cut:
        raise subject.broken(contract, f"no gradient of critic reaches {cut[0]}")


def ignores_order(subject: Subject) -> None:
    """Check that the loss accepts one pair, and does not depend on the order of pairs."""
    (one,) = subject.called(subject.component, (1,))
    if not isinstance(one, Tensor) or one.shape != () or not bool(one.isfinite()):
        raise subject.broken("the loss of a batch of one must be a finite scalar", f"it is {_kind(one)}")
    torch.manual_seed(9)
    with torch.no_grad(), subject.running("forward"):
        again = subject.call(subject.component, ROWS, CPU)
    if not torch.equal(again[0], subject.outputs[0]):
        return  # a random loss: an effect of the order cannot be separated from chance
    (permuted,) = subject.called(subject.component, (2, 0, 1))
    if not torch.allclose(permuted.float(), subject.outputs[0].float(), rtol=1e-3, atol=1e-6):
        raise subject.broken(
            "a loss must not depend on the order of the batch",
            f"it is {float(subject.outputs[0]):.6g}, and {float(permuted):.6g} in another order",
        )


class LossSubject(Subject):
    """A loss, applied to swaps of three pairs."""

    kind = "losses"

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Return the pairs, their swaps and the swapper."""
        batch, swapper = on_device(self, rows, device)
        with torch.no_grad():
            return batch, swapper(batch), swapper


def on_device(subject: Subject, rows: Sequence[int], device: torch.device) -> tuple[SwapBatch, Swapper]:
    """Return pairs and a swapper on a device.

    On the meta device a small identity encoder replaces the swapper's, because most recognisers do not run there.
    """
    swapper = subject.swapper()
    if device.type == "meta":
        swapper.identity = SmallIdentity()
    return batch_of(rows, subject.size).to(device), swapper.to(device)


def estimates(subject: Subject) -> None:
    """Check that the estimator returns a row for each face, in the shape of its quantity."""
    quantity = getattr(subject.cls, "quantity", None)
    if not isinstance(quantity, str) or not quantity:
        raise subject.broken(
            'an estimator must declare its quantity, with the unit: quantity = "pose_deg"', f"quantity is {quantity!r}"
        )
    (output,) = subject.outputs
    row_shapes = {"pose_deg": (3,), "landmarks68": (68, 2), "mask": (1, SIZE, SIZE)}
    row = row_shapes.get(quantity)
    if not isinstance(output, Tensor) or len(output) != len(ROWS) or (row and tuple(output.shape[1:]) != row):
        expected = f"(B, {', '.join(map(str, row))})" if row else "a row for each face"
        actual = _shape(output)
        raise subject.broken(
            f"forward must return {expected} for {quantity}", f"for {len(ROWS)} faces it returns {actual}"
        )


class EstimatorSubject(Subject):
    """An estimator, applied to three faces."""

    kind = "estimators"

    def inputs(self, rows: Sequence[int], device: torch.device) -> tuple[Any, ...]:
        """Return the target faces."""
        return (batch_of(rows, self.size).target.to(device),)


def _shape(value: Any) -> str:
    """Return a tensor's shape as text; for any other value, its type and value."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else _kind(value)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, list | tuple) and value and all(isinstance(item, Tensor) for item in value):
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
ATTRIBUTES = (
    *COMPONENT,
    Check("maps", encodes),
    Check("gradient", trains_every_weight),
    *NETWORK,
    *ROWWISE,
    META_RUN,
    TRACED,
)
GENERATOR = (
    *COMPONENT,
    Check("picture", generates_image),
    Check("attention", returns_attention),
    Check("gradient", trains_every_weight),
    *NETWORK,
    *ROWWISE,
    META_RUN,
    TRACED,
)
REFINER = (
    *COMPONENT,
    Check("picture", refines),
    Check("gradient", trains_every_weight),
    *NETWORK,
    *ROWWISE,
    META_RUN,
    TRACED,
)
LOSS = (
    *COMPONENT,
    Check("number", returns_scalar),
    Check("gradient", passes_gradients),
    Check("critic", trains_critic),
    *NETWORK,
    Check("batch", ignores_order),
)
ESTIMATOR = (*COMPONENT, Check("quantity", estimates), *NETWORK[:2], NETWORK[-1], *ROWWISE)
