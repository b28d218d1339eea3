"""How swapped crops get back into pictures: which pixels are taken, in which colours, and how the edge is made.

Crops and masks are prepared here at the size at which networks see them; `fsframework.faces.align.paste` brings them
into the frame. So the work is bounded however large a face is, and a face that the frame's border cuts is like any
other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from fsframework.core.components import Estimator
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.core.registry import component, components
from fsframework.core.types import FaceBatch
from fsframework.faces.align import soft_mask
from fsframework.faces.color_transfer import (
    MASK_EDGE,
    mask_edge,
    match_boundary_color,
    match_histogram,
    poisson_blend,
    reinhard_transfer,
)
from fsframework.faces.occlusion_mask import occlusion_mask
from fsframework.utils import yaml
from fsframework.utils.weights import digest

OVAL, LANDMARKS = "oval", "landmarks"
HULL = {"use": "hull-mask", "forehead": 0.3, "shrink": 0.03, "soft": 0.025}  # what `landmarks` means
BORDER = 1 / 16  # of the crop's side: there a mask that was found fades to 0

Matching = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
COLOURS: dict[str, Matching | None] = {
    "edge": match_boundary_color,
    "none": None,
    "lab": reinhard_transfer,
    "histogram": match_histogram,
}
BLENDS = ("alpha", "poisson")
NOTHING, OCCLUSIONS = KEEPS = ("nothing", "occlusions")


@dataclass(frozen=True)
class PasteOptions:
    """What `fsf swap` can be told about pasting.

    Parameters
    ----------
    mask:
        `oval`, the same for every face; `landmarks`, the hull of the target's 68 landmarks with some forehead; or
        an installed estimator of masks, by its name or, with options, as in a recipe: `{use: NAME, OPTION: VALUE}`.
    colour:
        `edge`: one shift, so that swap and target agree where the mask fades. `lab`: the target's mean and standard
        deviation of each channel of CIE Lab inside the mask. `histogram`: the target's histogram of each channel
        there. `none`: as painted.
    blend:
        `alpha`: swap and target are mixed as the mask says. `poisson`: the swap's gradients are fitted into the target
        first. Where the mask is too small for that, alpha takes its place.
    keep:
        `occlusions`: the target shows where the generator cannot paint it (see `pasting_occlusions`).

    Raises
    ------
    UserError
        There is no such mask, colour, blend or keep.
    """

    mask: str = OVAL
    colour: str = "edge"
    blend: str = "alpha"
    keep: str = NOTHING

    def __post_init__(self) -> None:
        for option, known in (("colour", COLOURS), ("blend", BLENDS), ("keep", KEEPS)):
            if (value := getattr(self, option)) not in known:
                raise UserError(f"{option}: {value!r} is unknown; choose from {', '.join(known)}")
        self.mask_estimator()

    def mask_estimator(self) -> Part | None:
        """The estimator of masks that is named; None for the oval. Raises UserError if there is none."""
        if self.mask == OVAL:
            return None
        value: Any = HULL if self.mask == LANDMARKS else {"use": self.mask}
        if self.mask.startswith("{"):
            value, _ = yaml.parse_yaml(self.mask, "mask")
        try:
            part: Part = TypeAdapter(Annotated[Part, use("estimators")]).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"{key}: " for key in first["loc"])
            unknown = f"there is no such option; fsf plugins show estimators {value.get('use')} lists them"
            reason = unknown if first["type"] == "extra_forbidden" else first["msg"]
            raise UserError(f"mask: {place}{reason}") from None
        if _quantity(component("estimators", part.name)) != "mask":
            raise UserError(f"mask: {part.name} finds no masks; choose from {', '.join([OVAL, LANDMARKS, *_masks()])}")
        return part

    def facts(self) -> str | None:
        """In words, for a manifest, without names of files; None if everything is as by default."""
        if self == DEFAULT_PASTE:
            return None
        part = self.mask_estimator()
        words = {"mask": self.mask if part is None or self.mask == LANDMARKS else part.name}
        return ", ".join(f"{each.name} {words.get(each.name, getattr(self, each.name))}" for each in fields(self))


def _quantity(cls: type[Any]) -> str | None:
    return getattr(cls, "quantity", None)


def _masks() -> list[str]:
    return [name for name, cls in components("estimators").items() if _quantity(cls) == "mask"]


DEFAULT_PASTE = PasteOptions()


class Compositor:
    """Prepares swapped crops as a `PasteOptions` says; made once, used for any number of them.

    Parameters
    ----------
    pasting:
        What is wanted.
    size:
        Side of the crops, in pixels.
    device:
        Where masks are found.

    Raises
    ------
    UserError
        The mask's estimator cannot be loaded, or was never trained.
    """

    def __init__(self, pasting: PasteOptions, size: int, device: str | torch.device = "cpu") -> None:
        self.pasting = pasting
        self.oval, self.border = soft_mask(size), _border(size)
        self.mask_estimator = _loaded(pasting.mask_estimator(), device)
        self.hull = None
        if pasting.keep == OCCLUSIONS:
            shared = pasting.mask == LANDMARKS
            self.hull = self.mask_estimator if shared else _loaded(PasteOptions(LANDMARKS).mask_estimator(), device)

    def sha256(self) -> str | None:
        """Of the tensors that find masks, if any do."""
        return None if self.mask_estimator is None else digest(self.mask_estimator)

    def __call__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        faces: FaceBatch,
        painted: np.ndarray | None = None,
        itself: np.ndarray | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each swap with its colours, and how much of it to take.

        Parameters
        ----------
        images, targets:
            Swaps and the targets' crops, (B, S, S, 3) uint8.
        faces:
            The targets again, as networks see them.
        painted:
            Masks (B, S, S) that a generator painted beside its swaps; they are multiplied with the one that is chosen.
        itself:
            (B, S, S, 3) uint8, what the generator makes of the targets with their own identities; only where
            `occlusions` are kept.

        Returns
        -------
        (S, S, 3) uint8 and a mask (S, S) in 0..1 for each.
        """
        # Generators that paint a mask say where the target shows, so the mask's edge is no place to compare colours.
        as_painted = painted is not None and self.pasting.colour == "edge"
        match = None if as_painted else COLOURS[self.pasting.colour]
        masks, hulls = self._masks(faces, self.mask_estimator), self._masks(faces, self.hull)
        made = []
        for number, (image, target, mask) in enumerate(zip(images, targets, masks, strict=True)):
            if painted is not None:
                mask = painted[number] * mask
            if match is not None:
                image = match(image, target, mask)
            if self.pasting.blend == "poisson":
                image = _fitted(image, target, mask)
            if itself is not None:
                mask = mask * (1 - occlusion_mask(target, itself[number], hulls[number]))
            made.append((image, mask))
        return made

    def _masks(self, faces: FaceBatch, finder: Estimator | None) -> Sequence[np.ndarray]:
        """(S, S) float32 for each face; the oval where there is no estimator, or it fails."""
        if finder is None:
            return [self.oval] * len(faces.image)
        with torch.inference_mode():
            found = finder(faces)[:, 0].float().cpu().numpy()
        return [mask.clip(0, 1) * self.border if np.isfinite(mask).all() else self.oval for mask in found]


def _loaded(part: Part | None, device: str | torch.device) -> Estimator | None:
    """The estimator, ready; None of none. Raises UserError if it cannot be loaded or is untrained."""
    if part is None:
        return None
    finder: Estimator = part.build_estimator("mask", "mask")
    finder.load()
    if any(parameter.requires_grad for parameter in finder.parameters()):
        advice = f"name its weights: {{use: {part.name}, weights: FILE}}"
        raise UserError(f"mask: {part.name} is untrained as it stands here; {advice}")
    return finder.to(device).eval()


def _border(size: int) -> np.ndarray:
    """1, and at the crop's border 0: (size, size) float32."""
    inwards = np.minimum(np.arange(size), np.arange(size)[::-1])  # pixels from the border
    ramp = np.clip(inwards / (BORDER * size), 0, 1)
    edge: np.ndarray = np.minimum(ramp[:, None], ramp).astype(np.float32)
    return edge


def _fitted(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`cloned` wherever the mask takes anything, so that the two already agree where it fades; or else the image."""
    taken = (mask > MASK_EDGE[0]).astype(np.float32)
    made = poisson_blend(image, target, taken)
    return image if (made == target).all() else made


def seam(result: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """How sharp the edge of what was pasted is, in units of what the target shows there; 1 is as sharp.

    It is the mean absolute gradient across the mask's edge, that is along the mask's own gradient, of all three
    channels, where the mask fades: the result's divided by the target's.

    Parameters
    ----------
    result, target:
        (H, W, 3) uint8.
    mask:
        (H, W) 0..1, in the same place.

    Returns
    -------
    NaN if the mask fades nowhere, or the target has one colour there.
    """
    slope = np.array(np.gradient(mask.astype(np.float64)))  # (2, H, W)
    length = np.linalg.norm(slope, axis=0)
    edge = mask_edge(mask) & (length > 0)
    if not edge.any():
        return float("nan")
    normal = slope[:, edge] / length[edge]  # (2, n)
    own, wanted = _across(result, edge, normal), _across(target, edge, normal)
    return own / wanted if wanted > 0 else float("nan")


def _across(image: np.ndarray, edge: np.ndarray, normal: np.ndarray) -> float:
    """Mean absolute derivative of an image (H, W, 3) at the edge's n pixels, along normals (2, n)."""
    gradient = np.array(np.gradient(image.astype(np.float64), axis=(0, 1)))  # (2, H, W, 3)
    return float(np.abs((gradient[:, edge] * normal[..., None]).sum(axis=0)).mean())
