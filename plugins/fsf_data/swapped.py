"""Dataset wrapper with swaps by a frozen model, for reversed pseudo-triplets (ReliableSwap, arXiv:2306.05356)."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from fsf_data import cache
from fsf_data.texts import mapped
from fsframework.core.bases import DatasetWrapper
from fsframework.core.components import Dataset
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, Sample, SwapBatch, SwapResult
from fsframework.data.train_pairs import draw_stranger
from fsframework.faces.paste import OVAL, Compositor, PasteOptions, generated_masks
from fsframework.media.tensor import keep_grey, to_images, to_tensor
from fsframework.models import store
from fsframework.ops.conv import cache_weights
from fsframework.ops.precision import autocast, wants_bf16
from fsframework.recipe.schema import Recipe
from fsframework.utils.files import sha256_of
from fsframework.utils.progress import progress, tracked
from fsframework.utils.weights import below

FORMAT = 1  # version of the stored swaps, and of how they are made
BATCH = 32
INNER = "data"  # prefix of the keys of the inner dataset's state


class Plan(NamedTuple):
    """The random choices for one swap."""

    source: int  # index of the face that gives the identity
    pasted: bool


class Swaps:
    """Stored swaps, one for each face. Its pickle holds the path only.

    Raises
    ------
    OSError, EOFError, ValueError
        The folder holds no complete swaps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = mapped(folder, "images")  # (N, S, S, 3) uint8

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)


class Swapped(DatasetWrapper):
    """Dataset wrapper for `pairs.reversed`: targets into which a frozen model swapped another person's face.

    The real face is the ground truth, and its person the source, so that pixel losses are right although source and
    target show different people (ReliableSwap; CSCS, ACM TOG 2024; DreamID, arXiv:2504.14509). Each face has one swap,
    made before the first step and cached. Inputs differ from those of use by the model's artefacts, which a network can
    learn to detect. Hence only a fraction of the pairs is reversed, and some swaps are pasted into the real face.
    """

    name = "swapped"

    class Options(DatasetWrapper.Options):
        model: str = Field(
            description="Frozen model with crops of the recipe's size: an installed model's name, a model's file, or a "
            "run's folder."
        )
        refine: bool = Field(
            False,
            description="Whether the model's refiner is used. It restores pixels of the ground truth, which a network "
            "could copy.",
        )
        pasted: float = Field(
            0.5, ge=0, le=1, description="Fraction of the swaps that are pasted into the face, in an oval."
        )
        seed: int = Field(0, ge=0, description="Seed of the sources and of which swaps are pasted.")
        cache: Path | None = Field(None, description="Folder for the swaps; default: ~/.cache/fsframework.")

    options: Options

    def __init__(self, options: Options, size: int, detector: Any, split: str) -> None:
        super().__init__(options, size, detector, split)
        self.swaps: Swaps | None = None

    def load(self) -> None:
        """Load the inner dataset.

        Raises
        ------
        UserError
            For training: there is no such model, or its crops have another size.
        """
        super().load()
        if self.split == "train":  # evaluation needs no swaps, and perhaps has no such model
            where = f"swapped: model: {self.options.model}"
            if self.options.model.endswith(".onnx"):
                raise UserError(f"{where}: is an ONNX model; use the run or model that it was made from")
            recipe = _recipe(self.options.model)
            if recipe.networks.generator is None:
                raise UserError(f"{where}: is a recogniser and cannot swap faces; choose another model")
            if recipe.size != self.size:
                sizes = f"has crops of {recipe.size} px, the recipe of {self.size} px"
                raise UserError(f"{where}: {sizes}; use a model of that size")

    @property
    def is_reversible(self) -> bool:
        """Return True."""
        return True

    def reversed_target(self, index: int, rng: np.random.Generator) -> Sample:
        """Return the stored swap of the face at `index`, with the face as ground truth."""
        if self.swaps is None:
            raise RuntimeError("prepare() or restore() comes before reversed_target()")
        sample = self.inner[index]
        valid_mask = np.ones(sample.image.shape[:2], bool)
        return replace(sample, image=self.swaps.images[index].copy(), ground_truth=sample.image, valid_mask=valid_mask)

    def prepare(self, swapper: Swapper) -> dict[str, np.ndarray]:
        """Swap a face into every face of the inner dataset, unless the cache has the swaps.

        Returns
        -------
        The state for `restore`: `faces` (32,) uint8, the SHA-256 of the faces; and the inner dataset's state with keys
        that begin with `data.`.
        """
        inner = self.inner.prepare(swapper)
        self.inner.restore(inner)
        device = next((value.device for value in swapper.parameters()), None)
        faces = _digest(self.inner)
        self.swaps = self._open(faces, lambda folder: self._write(folder, device))
        return {"faces": np.frombuffer(faces, np.uint8).copy(), **{f"{INNER}.{key}": inner[key] for key in inner}}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Open the swaps of a state that `prepare` returned; make them again if they are not in the cache.

        Raises
        ------
        UserError
            They are not in the cache, and the faces have changed.
        """
        self.inner.restore(below(INNER, state))
        faces = state["faces"].astype(np.uint8).tobytes()

        def write(folder: Path) -> None:
            if _digest(self.inner) != faces:
                raise UserError("swapped: the faces have changed since the run began; begin a new run")
            self._write(folder, None)

        self.swaps = self._open(faces, write)

    def _open(self, faces: bytes, write: Callable[[Path], None]) -> Swaps:
        """Return the swaps of faces with a digest, from the cache; `write` fills its folder if they are absent."""
        options = self.options
        depends_on = {
            "format": FORMAT,
            "model": [sha256_of(file) for file in store.weights_files(options.model)],
            "networks": _recipe(options.model).networks.model_dump(mode="json"),
            "options": options.model_dump(mode="json", include={"refine", "pasted", "seed"}),
            "size": self.size,
            "faces": faces.hex(),
        }

        def opened(folder: Path) -> Swaps:
            swaps = Swaps(folder)
            if swaps.images.shape != (len(self.inner), self.size, self.size, 3):
                raise ValueError(f"{folder}: holds swaps of other faces")
            return swaps

        return cache.cached(options.cache, "swaps", depends_on, write, opened)

    def _write(self, folder: Path, device: torch.device | None) -> None:
        shape = (len(self.inner), self.size, self.size, 3)
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
        plans, frozen = self.plans(), _Frozen(self.options, self.size, device)
        with progress("swapping faces", len(plans), "faces") as ticker:
            for start in range(0, len(plans), BATCH):
                indices = range(start, min(start + BATCH, len(plans)))
                sources = [self.inner[plans[index].source] for index in indices]
                targets = [self.inner[index] for index in indices]
                images[start : indices.stop] = frozen(sources, targets, [plans[index].pasted for index in indices])
                ticker.advance(len(indices))
        images.flush()

    def plans(self) -> list[Plan]:
        """Return the plan of each face's swap. It depends on (seed, index), the people and their number alone."""
        persons, plans = self.inner.persons(), []
        for target in range(len(persons)):
            rng = np.random.default_rng([self.options.seed, target])
            pasted = bool(rng.random() < self.options.pasted)
            plans.append(Plan(draw_stranger(persons, target, rng), pasted))
        return plans


class _Frozen:
    """The frozen model, in eval mode, with its compositor."""

    def __init__(self, options: Swapped.Options, size: int, device: torch.device | None) -> None:
        trained = store.load(options.model, None if device is None else str(device))
        self.swapper, self.device = trained.swapper, trained.device
        if not options.refine:
            self.swapper.refiner = None
        cache_weights(self.swapper)
        # On a processor with AMX 1.6 times as fast at 128 px; 99 % of the values differ by at most a grey level.
        self.bf16 = wants_bf16("auto", self.device, "swapped")
        self.compositor = Compositor(PasteOptions(mask=OVAL), size)

    def __call__(self, sources: list[Sample], targets: list[Sample], pasted: list[bool]) -> np.ndarray:
        """Return the swaps (B, S, S, 3) uint8."""
        images = np.stack([target.image for target in targets])
        with torch.inference_mode(), autocast(self.device, self.bf16):
            target = _faces(targets, self.device)
            result: SwapResult = self.swapper(SwapBatch.of(_faces(sources, self.device), target))
        swaps, masks = to_images(result.image), generated_masks(result, self.swapper.generator.composes)
        if masks is not None and not self.swapper.generator.composes:
            swaps = np.stack([_blend(*rows) for rows in zip(swaps, images, masks, strict=True)])
        for row, (swap, mask) in enumerate(self.compositor(swaps, images, target, masks)):
            if pasted[row]:
                swaps[row] = _blend(swap, images[row], mask)
        return keep_grey(swaps, images)  # as in use; else a network would learn to remove weak colours


def _faces(samples: list[Sample], device: torch.device) -> FaceBatch:
    landmarks = np.stack([sample.landmarks for sample in samples]).astype(np.float32)
    image = to_tensor(np.stack([sample.image for sample in samples]))
    return FaceBatch.of(image.to(device), torch.from_numpy(landmarks).to(device))


def _blend(swap: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return mask * swap + (1 - mask) * target, (S, S, 3) uint8, for a mask (S, S) in 0..1."""
    alpha = mask[..., None]
    return np.rint(alpha * swap + (1 - alpha) * target).astype(np.uint8)


def _recipe(model: str) -> Recipe:
    """Return the recipe of a model or run. Raises UserError if there is none."""
    try:
        return store.recipe_at(model)
    except UserError as error:
        raise UserError(f"swapped: model: {error}") from error


def _digest(data: Dataset) -> bytes:
    """Return the SHA-256 of a dataset's images, landmarks and person numbers."""
    digest = hashlib.sha256(data.persons().tobytes())
    for sample in tracked(map(data.__getitem__, range(len(data))), "reading faces", len(data), "faces"):
        digest.update(np.ascontiguousarray(sample.image).data)
        digest.update(sample.landmarks.astype(np.float32).tobytes())
    return digest.digest()
