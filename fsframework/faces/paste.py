"""Composite swapped crops: mask, colour matching, blending and occlusions.

Crops and masks are prepared here at the size of the networks; `paste` warps them into the
frame. So the cost does not depend on the size of a face, and faces at the frame's border need no special case.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from fsframework.core import renamed
from fsframework.core.components import Estimator
from fsframework.core.errors import UserError, did_you_mean
from fsframework.core.part import Part, use
from fsframework.core.registry import component, components
from fsframework.core.types import FaceBatch, SwapResult
from fsframework.faces.align import _resample, invert, template, transform
from fsframework.faces.color_transfer import (
    mask_edge,
    match_boundary_color,
    match_histogram,
    poisson_match,
    reinhard_transfer,
)
from fsframework.faces.occlusion_mask import equal_eyes, occlusion_mask
from fsframework.utils import yaml
from fsframework.utils.weights import digest

OVAL, HULL, LANDMARKS = "oval", "hull", "landmarks"
FIVE, DLIB = {"use": "five-point-landmarks"}, {"use": "dlib-landmarks"}
ESTIMATORS = {  # behind the masks of these names
    HULL: {"use": "hull-mask", "landmarks": FIVE, "forehead": 0.4, "shrink": 0.02, "soft": 0.025},
    LANDMARKS: {"use": "hull-mask", "landmarks": DLIB, "forehead": 0.3, "shrink": 0.03, "soft": 0.025},
}
COMPOSED = 0.1  # the generator's mask from which a composed crop is pasted undiluted
REACH = 3  # pixels of the crop: how far resampling widens a mask, and half a pixel
BORDER = 1 / 16  # of the crop's side: the band in which estimated masks fade to 0

Matching = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
COLOURS: dict[str, Matching | None] = {
    "edge": match_boundary_color,
    "none": None,
    "lab": reinhard_transfer,
    "histogram": match_histogram,
}
BLENDS = ("alpha", "poisson")
NOTHING, OCCLUSIONS, ERRORS = KEEPS = ("nothing", "occlusions", "reconstruction-errors")
SEGMENTER = {"use": "face-segmenter"}  # the estimator behind `occlusions`
CERTAIN = (0.25, 0.75)  # the segmenter's mask is stretched from this range to 0..1, so that only edges are soft


@dataclass(frozen=True)
class PasteOptions:
    """Options for pasting swapped crops, as of `fsf swap`.

    Parameters
    ----------
    mask:
        `hull`, the target's face from forehead to chin, as estimated from its five landmarks. `landmarks`, a smaller
        hull of 68 landmarks, which needs dlib. `oval`, the same for every face. Or a mask estimator, by its name or
        with options as in a recipe: `{use: NAME, OPTION: VALUE}`.
    colour:
        `edge`: one shift, which matches swap and target at the mask's edge. `lab`: the target's mean and standard
        deviation of each channel of CIE Lab inside the mask. `histogram`: the target's histogram of each channel
        there. `none`: no matching.
    blend:
        `alpha`: the mask is the weight of the swap. `poisson`: Poisson blending first; where the mask is too small
        for it, alpha alone.
    keep:
        `occlusions`: keep the target's pixels that the estimator face-segmenter excludes from the face, such as hair,
        glasses and hands. `reconstruction-errors`: keep those of objects that the generator cannot reconstruct (see
        `occlusion_mask`), at the cost of a second pass.

    Raises
    ------
    UserError
        There is no such mask, colour, blend or keep.
    """

    mask: str = HULL
    colour: str = "edge"
    blend: str = "alpha"
    keep: str = NOTHING

    def __post_init__(self) -> None:
        for option, values in (("colour", COLOURS), ("blend", BLENDS), ("keep", KEEPS)):
            if (value := getattr(self, option)) not in values:
                raise UserError(f"{option}: {value!r} is unknown; choose from {', '.join(values)}")
        if self.mask not in (*ESTIMATORS, OVAL):  # validation of these would load the plugins at import
            self.mask_estimator()

    def mask_estimator(self) -> Part | None:
        """Return the mask estimator, or None for the oval. Raise UserError if there is none of that name."""
        if self.mask == OVAL:
            return None
        value: Any = ESTIMATORS.get(self.mask, {"use": self.mask})
        if self.mask.startswith("{"):
            value, _ = yaml.parse_yaml(self.mask, "mask")
        name = value.get("use") if isinstance(value, dict) else None
        if isinstance(name, str) and name not in components("estimators") and name not in renamed.COMPONENTS:
            masks = [*ESTIMATORS, OVAL, *_masks()]
            hint = did_you_mean(name, masks, f"choose from {', '.join(masks)}")
            raise UserError(f"mask: no mask is called {name}; {hint}")
        try:
            part = _estimator(value)
        except ValidationError as error:
            first = error.errors()[0]
            location = "".join(f"{key}: " for key in first["loc"])
            unknown = f"there is no such option; fsf plugins show estimators {value.get('use')} lists them"
            reason = unknown if first["type"] == "extra_forbidden" else first["msg"]
            raise UserError(f"mask: {location}{reason}") from None
        if _quantity(component("estimators", part.name)) != "mask":
            raise UserError(
                f"mask: {part.name} is not a mask estimator; choose from {', '.join([*ESTIMATORS, OVAL, *_masks()])}"
            )
        return part

    def facts(self) -> str | None:
        """Return the options in words for a manifest, without file names; None if all are the defaults."""
        if self == DEFAULT_PASTE:
            return None
        part = self.mask_estimator()
        words = {"mask": self.mask if part is None or self.mask in ESTIMATORS else part.name}
        return ", ".join(f"{entry.name} {words.get(entry.name, getattr(self, entry.name))}" for entry in fields(self))


def _quantity(cls: type[Any]) -> str | None:
    return getattr(cls, "quantity", None)


def _masks() -> list[str]:
    return [name for name, cls in components("estimators").items() if _quantity(cls) == "mask"]


DEFAULT_PASTE = PasteOptions()


class Compositor:
    """Applies `PasteOptions` to swapped crops.

    Parameters
    ----------
    pasting:
        Mask, colour matching, blending and occlusions.
    size:
        Side of the crops, in pixels.
    device:
        Device of the mask estimators.

    Raises
    ------
    UserError
        The mask estimator cannot be loaded, or is untrained.
    """

    def __init__(self, pasting: PasteOptions, size: int, device: str | torch.device = "cpu") -> None:
        self.pasting = pasting
        self.oval, self.border = soft_mask(size), _border(size)
        self.mask_estimator = _loaded(pasting.mask_estimator(), device)
        self.hull = self.segmenter = None
        if pasting.keep == OCCLUSIONS:
            self.segmenter = _loaded(_estimator(SEGMENTER), device, "keep")
        elif pasting.keep == ERRORS:
            shared = pasting.mask == LANDMARKS
            self.hull = self.mask_estimator if shared else _loaded(PasteOptions(LANDMARKS).mask_estimator(), device)

    def sha256(self) -> str | None:
        """Return the SHA-256 of the tensors of mask estimator and segmenter, or None without them."""
        networks = [network for network in (self.mask_estimator, self.segmenter) if network is not None]
        if not networks:
            return None
        return digest(networks[0] if len(networks) == 1 else torch.nn.ModuleList(networks))

    def visible_faces(self, faces: FaceBatch) -> np.ndarray | None:
        """Return masks (B, S, S) float32 in 0..1 of the visible faces if occlusions are kept, else None."""
        if self.segmenter is None:
            return None
        with torch.inference_mode():
            masks: np.ndarray = self.segmenter(faces)[:, 0].float().cpu().numpy()
        low, high = CERTAIN
        masks = ((masks - low) / (high - low)).clip(0, 1)
        landmarks = faces.landmarks.cpu().numpy()
        known = np.isfinite(landmarks).all(axis=(1, 2), keepdims=True)
        eyes = np.where(known, landmarks, template(masks.shape[-1]))[:, :2]
        return np.stack([equal_eyes(mask, pair) for mask, pair in zip(masks, eyes, strict=True)])

    def __call__(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        faces: FaceBatch,
        generated_masks: np.ndarray | None = None,
        self_reconstruction: np.ndarray | None = None,
        visible_faces: np.ndarray | None = None,
        inside: Sequence[np.ndarray | None] | None = None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each swap with matched colours, and its mask.

        Parameters
        ----------
        images, targets:
            Swaps and the targets' crops, (B, S, S, 3) uint8.
        faces:
            The targets as a batch for networks.
        generated_masks:
            Masks (B, S, S) in 0..1 from the generator, multiplied with the selected mask.
        self_reconstruction:
            (B, S, S, 3) uint8, the targets swapped with their own identities; required to keep reconstruction errors.
        visible_faces:
            What `visible_faces` returns for the targets; None: it is computed.
        inside:
            Where each target's crop shows its frame (see `AlignedFace`), to which colours are matched; None: it all.

        Returns
        -------
        (S, S, 3) uint8 and a mask (S, S) in 0..1 for each.
        """
        # A generated mask may end inside the face, so colours at its edge are not comparable.
        unmatched = generated_masks is not None and self.pasting.colour == "edge"
        match = None if unmatched else COLOURS[self.pasting.colour]
        masks, hulls = self._masks(faces, self.mask_estimator), self._masks(faces, self.hull)
        if visible_faces is None:
            visible_faces = self.visible_faces(faces)
        results = []
        for number, (image, target, mask) in enumerate(zip(images, targets, masks, strict=True)):
            if generated_masks is not None:
                mask = generated_masks[number] * mask
            if match is not None:
                shown = None if inside is None else inside[number]
                image = match(image, target, mask if shown is None else mask * shown)
            if self.pasting.blend == "poisson":
                image = poisson_match(image, target, mask)
            if visible_faces is not None:
                mask = mask * visible_faces[number]
            if self_reconstruction is not None:
                mask = mask * (1 - occlusion_mask(target, self_reconstruction[number], hulls[number]))
            results.append((image, mask))
        return results

    def _masks(self, faces: FaceBatch, estimator: Estimator | None) -> Sequence[np.ndarray]:
        """Return a mask (S, S) float32 for each face; the oval without an estimator, or where it fails."""
        if estimator is None:
            return [self.oval] * len(faces.image)
        with torch.inference_mode():
            masks = estimator(faces)[:, 0].float().cpu().numpy()
        return [mask.clip(0, 1) * self.border if np.isfinite(mask).all() else self.oval for mask in masks]


def _estimator(value: Any) -> Part:
    """Return a named estimator. Raise ValidationError if there is none, or an option is wrong."""
    part: Part = TypeAdapter(Annotated[Part, use("estimators")]).validate_python(value)
    return part


def generated_masks(result: SwapResult, composes: bool) -> np.ndarray | None:
    """Return the masks (B, S, S) in 0..1 by which a generator's swaps are pasted, None if it has no mask of its own.

    Parameters
    ----------
    result:
        The swaps. After a refiner the generator's mask does not apply.
    composes:
        Whether the swaps are composed with their targets (`Generator.composes`).
    """
    if result.mask is None or result.image is not result.coarse:
        return None
    # A composed crop contains the mask already. Where that is 0, the frame is sharper than the crop.
    mask = result.mask / COMPOSED if composes else result.mask
    masks: np.ndarray = mask[:, 0].float().clamp(0, 1).cpu().numpy()
    return masks


def _loaded(part: Part | None, device: str | torch.device, option: str = "mask") -> Estimator | None:
    """Return the loaded estimator, or None for None. Raise UserError if it cannot be loaded or is untrained."""
    if part is None:
        return None
    estimator: Estimator = part.build_estimator("mask", option)
    estimator.load()
    if any(parameter.requires_grad for parameter in estimator.parameters()):
        advice = f"name its weights: {{use: {part.name}, weights: FILE}}"
        raise UserError(f"{option}: {part.name} is untrained with these options; {advice}")
    return estimator.to(device).eval()


def _border(size: int) -> np.ndarray:
    """Return a mask (size, size) float32 that is 1 and fades to 0 at the crop's border."""
    inwards = np.minimum(np.arange(size), np.arange(size)[::-1])  # pixels from the border
    ramp = np.clip(inwards / (BORDER * size), 0, 1)
    edge: np.ndarray = np.minimum(ramp[:, None], ramp).astype(np.float32)
    return edge


def paste(frame: np.ndarray, crop: np.ndarray, matrix: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a copy of a frame with a crop pasted back; parameters as of `paste_into`."""
    result = frame.copy()
    paste_into(result, crop, matrix, mask)
    return result


def paste_into(frame: np.ndarray, crop: np.ndarray, matrix: np.ndarray, mask: np.ndarray) -> None:
    """Paste a crop back into its frame, writing only the bounding rectangle of its mask.

    Parameters
    ----------
    frame:
        (H, W, 3) uint8, modified in place.
    crop:
        (S, S, 3) uint8.
    matrix:
        (2, 3), from frame pixels to crop pixels.
    mask:
        (S, S) in 0..1, the weight of the crop. It should be 0 at the crop's border.
    """
    height, width = frame.shape[:2]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    size = len(crop)
    (upper, lower), (west, east) = ((max(0, i[0] - REACH), min(size, i[-1] + 1 + REACH)) for i in (rows, columns))
    back = invert(matrix)
    corners = transform(np.array([[west, upper], [east, upper], [west, lower], [east, lower]], dtype=np.float64), back)
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)) + 1, [width, height]).astype(int)
    if right <= left or bottom <= top:
        return
    back[:, 2] -= [left, top]
    region_size = (int(right - left), int(bottom - top))
    alpha = _resample(mask.astype(np.float32), back, region_size, cv2.BORDER_CONSTANT).clip(0, 1)[..., None]
    colour = _resample(crop, back, region_size, cv2.BORDER_REPLICATE).astype(np.float32)
    region = frame[top:bottom, left:right]
    region[:] = np.rint(alpha * colour + (1 - alpha) * region).astype(np.uint8)


def soft_mask(size: int) -> np.ndarray:
    """Return an oval mask, forehead to chin, that fades to 0 before the crop's border: (size, size) float32 0..1."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    radius = np.hypot((x - 0.504) / 0.33, (y - 0.60) / 0.38)
    ramp = np.clip((1 - radius) / 0.25, 0, 1)
    soft: np.ndarray = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)  # smoothstep, because a kink is visible
    return soft


def seam(result: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Return the sharpness of the pasted region's edge, relative to the target's at the same pixels; 1 is equal.

    It is the mean absolute gradient of all three channels, along the gradient of the mask, where the mask fades. The
    result's value is divided by the target's.

    Parameters
    ----------
    result, target:
        (H, W, 3) uint8.
    mask:
        (H, W) in 0..1, at the same pixels.

    Returns
    -------
    The ratio; NaN if the mask fades nowhere, or the target is uniform there.
    """
    slope = np.array(np.gradient(mask.astype(np.float64)))  # (2, H, W)
    length = np.linalg.norm(slope, axis=0)
    edge = mask_edge(mask) & (length > 0)
    if not edge.any():
        return float("nan")
    normal = slope[:, edge] / length[edge]  # (2, n)
    actual, reference = _across(result, edge, normal), _across(target, edge, normal)
    return actual / reference if reference > 0 else float("nan")


def _across(image: np.ndarray, edge: np.ndarray, normal: np.ndarray) -> float:
    """Return the mean absolute derivative of an image (H, W, 3) at the edge's n pixels, along normals (2, n)."""
    gradient = np.array(np.gradient(image.astype(np.float64), axis=(0, 1)))  # (2, H, W, 3)
    return float(np.abs((gradient[:, edge] * normal[..., None]).sum(axis=0)).mean())
