"""Swap faces in images with a loaded method."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fsframework.core.components import Detector
from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import AlignedFace, Face, FaceBatch, SwapBatch
from fsframework.faces.align import align, transform
from fsframework.faces.paste import DEFAULT_PASTE, ERRORS, Compositor, PasteOptions, generated_masks, paste_into
from fsframework.faces.select import choose
from fsframework.faces.steady_mask import MaskSmoother
from fsframework.faces.turned import find_at_any_angle
from fsframework.media.image_io import read_image
from fsframework.media.tensor import keep_grey, to_images, to_tensor
from fsframework.models import store
from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.conv import cache_weights
from fsframework.ops.precision import Precision, autocast
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.record import ProvenanceRecord
from fsframework.utils.weights import digest

NO_COARSE = f"outputs no coarse swap, which keep: {ERRORS} needs"
MAX_BATCH = 16  # faces that the networks process at once


@dataclass(frozen=True, eq=False)
class SourceIdentity:
    """A source face and its embedding: computed once, used for any number of targets."""

    faces: FaceBatch  # B = 1
    z_id: Tensor  # (1, D)
    path: Path | None = None  # of the source image


class FaceSwapper:
    """Swaps faces in images with one trained method.

    `face` selects the faces of a target: "largest" (by the area of its box), "all", or a number from 1, counted from
    left to right by the middle of the box. Of a source, the largest face is used.

    Parameters
    ----------
    model:
        A run's folder, a model's file, or the name of an installed model.
    device:
        A torch device; by default the GPU if there is one.
    pasting:
        How swapped crops are pasted into their images.
    precision:
        Precision of the swapping networks. Detection and embeddings always use float32.
    runtime:
        As of `store.load`. Detection and masks always run by torch. "auto" is torch for methods with a refiner if
        `keep: reconstruction-errors` needs the swap before it.

    Raises
    ------
    UserError
        The model or the mask estimator cannot be loaded. The runtime returns no coarse swap, which
        `keep: reconstruction-errors` needs, or does not support the precision.
    """

    model: str | None = None  # name for the manifest; this and the next two are None if built by `of`
    recipe_sha256: str | None = None
    loaded_from: str | Path | None = None  # the model argument, from which other processes load the same model
    runtime: store.Runtime = "torch"  # what runs the swapping networks
    bf16 = False  # whether the swapping networks run in mixed precision

    def __init__(
        self,
        model: str | Path = store.DEFAULT,
        device: str | None = None,
        pasting: PasteOptions = DEFAULT_PASTE,
        precision: Precision = "fp32",
        runtime: store.Runtime | None = None,
    ) -> None:
        retain_freed_memory()
        if pasting.keep == ERRORS and store.recipe_at(model).networks.refiner:
            if store.is_onnx(model):
                raise UserError(f"{model}: {NO_COARSE}; use the model it was exported from")
            if runtime in ("openvino", "onnx"):
                raise UserError(f"--runtime {runtime}: {NO_COARSE}; use --runtime torch")
            runtime = None
        trained = store.load(model, device, runtime=runtime, precision=precision)
        if trained.recipe.networks.generator is None:
            raise UserError(f"{model}: is a recogniser and cannot swap faces; choose another model")
        self.bf16, self.runtime = trained.bf16, trained.swapper.runtime
        detector = trained.recipe.detector.build()
        detector.load()
        cache_weights(trained.swapper)
        self._assemble(trained.swapper, detector, trained.recipe.size, trained.device, pasting)
        self.model, self.recipe_sha256, self.loaded_from = trained.recipe.name, trained.recipe.digest(), model

    @classmethod
    def of(
        cls,
        swapper: Swapper,
        detector: Detector,
        size: int,
        device: str | torch.device = "cpu",
        pasting: PasteOptions = DEFAULT_PASTE,
    ) -> Self:
        """Return a face swapper of loaded networks; `size` is the side of the aligned crops in pixels."""
        face_swapper = cls.__new__(cls)
        face_swapper._assemble(swapper, detector, size, device, pasting)
        return face_swapper

    def _assemble(
        self, swapper: Swapper, detector: Detector, size: int, device: str | torch.device, pasting: PasteOptions
    ) -> None:
        self.swapper = swapper.to(device).eval()
        self.detector = detector.to(device).eval()
        self.size = size
        self.device = torch.device(device)
        self.paster = Compositor(pasting, size, device)

    def find(self, frame: np.ndarray, name: str, notes: list[str] | None = None) -> list[Face]:
        """Return the faces of a frame (H, W, 3) uint8, at any angle, best first.

        A line counts the doubtful ones that are left out (see `fsframework.faces.turned`). It is appended to `notes`,
        or printed on standard error without them. Raise UserError, with `name`, if there is no face, or only doubtful
        ones.
        """
        with torch.inference_mode():
            found = find_at_any_angle(self.detector, frame)
        if found.faces:
            if found.rejected:
                what = "1 doubtful face is" if found.rejected == 1 else f"{found.rejected} doubtful faces are"
                line = f"{what} left out, as turned copies show none there"
                if notes is None:
                    print(f"note: {name}: {line}", file=sys.stderr)
                else:
                    notes.append(line)
            return found.faces
        if found.rejected:
            doubt = "the landmarks of its only face differ in turned copies, so the face may be turned or be none"
            raise UserError(f"{name}: {doubt}; use a picture with an upright face, or turn this one")
        raise UserError(f"{name}: no face was detected; use a picture with a whole, upright face that is not small")

    def source(self, frame: np.ndarray, name: str, face: str = "largest") -> SourceIdentity:
        """Return a face of a frame (H, W, 3) uint8 as a source: the largest, or one by its number from the left.

        Raises UserError, with `name`, if there is none, or the model does not support this person.
        """
        chosen = choose(self.find(frame, name), face, name)[0]
        faces = self._networks_input([align(frame, chosen, self.size)])
        with torch.inference_mode():
            source = SourceIdentity(faces, self.swapper.identity(faces))
            if not bool(self.swapper.generator.supports(source.z_id, self.swapper.identity)):
                reason = "the model supports only the people of its training data, and this is none of them"
                raise UserError(f"{name}: {reason}; use another picture, or a model for any person")
        return source

    def read_source(self, path: Path) -> SourceIdentity:
        """Return the largest face of an image file as a source. Raise UserError if it cannot be read or has none."""
        return replace(self.source(read_image(path), str(path)), path=path)

    def swap(self, source_frame: np.ndarray, target_frame: np.ndarray, face: str = "largest") -> np.ndarray:
        """Return the target frame with the source's identity in the faces that `face` selects.

        Frames are (H, W, 3) uint8. Raises UserError if a frame has no face, or fewer than `face`.
        """
        return self.swap_into(self.source(source_frame, "source"), target_frame, "target", face)

    def swap_into(self, source: SourceIdentity, frame: np.ndarray, name: str, face: str = "largest") -> np.ndarray:
        """Return a frame (H, W, 3) uint8 with a source in the selected faces; errors begin with `name`."""
        return self.swap_faces(frame, [(chosen, source) for chosen in choose(self.find(frame, name), face, name)])

    def swap_faces(self, frame: np.ndarray, swaps: Sequence[tuple[Face, SourceIdentity]]) -> np.ndarray:
        """Return the frame (H, W, 3) uint8 with each face replaced by its source, in this order."""
        return self.swap_frames([frame], [swaps])[0]

    def swap_frames(
        self,
        frames: Sequence[np.ndarray],
        swaps: Sequence[Sequence[tuple[Face, SourceIdentity]]],
        smoothers: Sequence[Sequence[MaskSmoother]] | None = None,
    ) -> list[np.ndarray]:
        """Return `swap_faces` of several frames, whose faces are batched together.

        In consecutive frames of a video `smoothers` has the smoother of each swap's track, for the masks of occlusions.
        """
        crops = [
            (index, align(frame, face, self.size), source)
            for index, (frame, frame_swaps) in enumerate(zip(frames, swaps, strict=True))
            for face, source in frame_swaps
        ]
        of_crops = None if smoothers is None else [each for of_frame in smoothers for each in of_frame]
        outputs = [frame.copy() if frame_swaps else frame for frame, frame_swaps in zip(frames, swaps, strict=True)]
        for start in range(0, len(crops), MAX_BATCH):
            indices, aligned, sources = zip(*crops[start : start + MAX_BATCH], strict=True)
            swapped = self._swap_crops(sources, aligned, of_crops and of_crops[start : start + MAX_BATCH])
            for index, (crop, image, mask) in zip(indices, swapped, strict=True):
                paste_into(outputs[index], image, crop.matrix, mask)
        return outputs

    def observe(self, frame: np.ndarray, faces: Sequence[Face], smoothers: Sequence[MaskSmoother]) -> None:
        """Update the smoothers of the tracks of faces in a frame (H, W, 3) uint8 that is not swapped."""
        crops = [align(frame, face, self.size) for face in faces]
        if crops:
            self._visible_faces(crops, self._networks_input(crops), smoothers)

    def crops(
        self,
        frame: np.ndarray,
        swaps: Sequence[tuple[Face, SourceIdentity]],
        smoothers: Sequence[MaskSmoother] | None = None,
    ) -> list[tuple[AlignedFace, np.ndarray, np.ndarray]]:
        """Return what `swap_faces` pastes: each face's crop, its swap (S, S, 3) uint8 and mask (S, S) in 0..1.

        `smoothers` as in `swap_frames`.
        """
        crops = [align(frame, face, self.size) for face, _ in swaps]
        return self._swap_crops([source for _, source in swaps], crops, smoothers)

    def embed(self, frame: np.ndarray, faces: Sequence[Face]) -> Tensor:
        """Return the embeddings (n, D) of faces of a frame (H, W, 3) uint8."""
        with torch.inference_mode():
            z_id: Tensor = self.swapper.identity(self._networks_input([align(frame, f, self.size) for f in faces]))
        return z_id

    def _swap_crops(
        self,
        sources: Sequence[SourceIdentity],
        crops: Sequence[AlignedFace],
        smoothers: Sequence[MaskSmoother] | None = None,
    ) -> list[tuple[AlignedFace, np.ndarray, np.ndarray]]:
        """Return each crop with its swap (S, S, 3) uint8 and mask (S, S) in 0..1."""
        faces = [source.faces for source in sources]
        landmarks = torch.cat([face.landmarks for face in faces])
        source_batch = FaceBatch.of(torch.cat([face.image for face in faces]), landmarks)
        targets = self._networks_input(crops)
        with torch.inference_mode(), autocast(self.device, self.bf16):
            z_id = torch.cat([source.z_id for source in sources])
            result = self.swapper(SwapBatch.of(source_batch, targets), z_id)
        generated_mask = generated_masks(result, self.swapper.generator.composes)
        reconstruction = None
        if self.paster.pasting.keep == ERRORS:
            with torch.inference_mode(), autocast(self.device, self.bf16):
                reconstruction = to_images(
                    self.swapper.coarse(SwapBatch.of(targets, targets), z_att=result.z_att).image
                )
        target_images = np.stack([crop.image for crop in crops])
        visible = self._visible_faces(crops, targets, smoothers)
        composited = self.paster(
            to_images(result.image), target_images, targets, generated_mask, reconstruction, visible
        )
        # After compositing, because matching colours to a nearly grey target tints a grey swap.
        images = keep_grey(np.stack([image for image, _ in composited]), target_images)
        return [(crop, image, mask) for crop, image, (_, mask) in zip(crops, images, composited, strict=True)]

    def _visible_faces(
        self, crops: Sequence[AlignedFace], faces: FaceBatch, smoothers: Sequence[MaskSmoother] | None
    ) -> np.ndarray | None:
        """Return masks (B, S, S) of the visible faces, smoothed over time, if occlusions are kept, else None."""
        masks = self.paster.visible_faces(faces)
        if masks is None or smoothers is None:
            return masks
        steps = zip(smoothers, crops, masks, strict=True)
        return np.stack([smoother(crop.image, mask) for smoother, crop, mask in steps])

    def _networks_input(self, crops: Sequence[AlignedFace]) -> FaceBatch:
        landmarks = np.stack([transform(crop.face.landmarks, crop.matrix) for crop in crops])
        image = to_tensor(np.stack([crop.image for crop in crops]))
        return FaceBatch.of(image, torch.from_numpy(landmarks).float()).to(self.device)

    @cached_property
    def weights_sha256(self) -> str | None:
        """Return the SHA-256 of the networks' tensors (see `digest`)."""
        return digest(self.swapper)

    def origin(self, marking: ProvenanceOptions) -> ProvenanceRecord:
        """Return the provenance record of a new result, with a new watermark."""
        pasting = self.paster.pasting.facts()
        precision = "bf16" if self.bf16 else None
        return ProvenanceRecord(
            self.model, self.weights_sha256, self.recipe_sha256, marking.consent, pasting, precision
        )
