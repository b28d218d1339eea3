"""Faces in pictures -> swapped."""

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
from fsframework.faces.align import align, paste_into, transform
from fsframework.faces.paste import DEFAULT_PASTE, OCCLUSIONS, Compositor, PasteOptions
from fsframework.faces.select import choose
from fsframework.media.image_io import read_image
from fsframework.media.tensor import grey, is_grey, to_images, to_tensor
from fsframework.models import store
from fsframework.models.onnx_runtime import OnnxSwapper
from fsframework.ops.allocator import retain_freed_memory
from fsframework.ops.conv import cache_weights
from fsframework.ops.precision import Precision, autocast, wants_bf16
from fsframework.provenance.options import ProvenanceOptions
from fsframework.provenance.record import ProvenanceRecord
from fsframework.utils.weights import digest

TOGETHER = 16  # faces of one picture that go through the networks at once


@dataclass(frozen=True, eq=False)
class SourceIdentity:
    """Who is put into a picture: computed once, used for any number of targets."""

    faces: FaceBatch  # B = 1
    z_id: Tensor  # (1, D)
    path: Path | None = None  # of the picture


class FaceSwapper:
    """Swaps faces in pictures with one trained method.

    Which faces of a target are swapped is said by `face`: "largest" (by the area of its box), "all", or a number
    from 1, counted from left to right by the middle of the box. Of a source it is always the largest.

    Parameters
    ----------
    model:
        What `models.load` takes: a run's folder, a model's file, or the name of an installed model.
    device:
        As torch names it; by default the GPU if there is one.
    pasting:
        How swaps get into their pictures.
    precision:
        What the networks that swap compute in; finding and embedding faces is float32 always.

    Raises
    ------
    UserError
        There is no model that can be loaded, or no mask; occlusions are to be kept, and the model hands on no coarse
        swap; or bf16 is asked of a model that onnxruntime runs.
    """

    model: str | None = None  # what results say of it; a converter of parts has none of these
    recipe_sha256: str | None = None
    loaded_from: str | Path | None = None  # what another process makes the same converter of
    bf16 = False  # whether it swaps in mixed precision

    def __init__(
        self,
        model: str | Path = store.DEFAULT,
        device: str | None = None,
        pasting: PasteOptions = DEFAULT_PASTE,
        precision: Precision = "fp32",
    ) -> None:
        retain_freed_memory()
        trained = store.load(model, device)
        if trained.recipe.networks.generator is None:
            raise UserError(f"{model}: is a recogniser and swaps nothing; name another model")
        by_onnx = isinstance(trained.swapper, OnnxSwapper)
        if pasting.keep == OCCLUSIONS and by_onnx and trained.recipe.networks.refiner:
            raise UserError(
                f"{model}: hands on no coarse swap, which keep: occlusions needs; use what it was exported from"
            )
        if precision == "bf16" and by_onnx:
            raise UserError(f"{model}: onnxruntime runs it, in float32; leave --precision out")
        self.bf16 = not by_onnx and wants_bf16(precision, trained.device, "--precision")
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
        """A converter of parts that are loaded already; `size` is the side of the swapper's crops."""
        converter = cls.__new__(cls)
        converter._assemble(swapper, detector, size, device, pasting)
        return converter

    def _assemble(
        self, swapper: Swapper, detector: Detector, size: int, device: str | torch.device, pasting: PasteOptions
    ) -> None:
        self.swapper = swapper.to(device).eval()
        self.detector = detector.to(device).eval()
        self.size = size
        self.device = torch.device(device)
        self.paster = Compositor(pasting, size, device)

    def find(self, frame: np.ndarray, name: str) -> list[Face]:
        """The faces of a frame (H, W, 3) uint8, best first. Raises UserError, with `name`, if there is none."""
        with torch.inference_mode():
            faces: list[Face] = self.detector([frame])[0]
        if not faces:
            raise UserError(f"{name}: no face was found; use a picture that shows a whole face, upright and not small")
        return faces

    def source(self, frame: np.ndarray, name: str, face: str = "largest") -> SourceIdentity:
        """A face of a frame (H, W, 3) uint8 as a source: the largest, or one by its number from the left.

        Raises UserError, with `name`, if there is none, or it shows nobody whom the model can paint.
        """
        chosen = choose(self.find(frame, name), face, name)[0]
        faces = self._networks_input([align(frame, chosen, self.size)])
        with torch.inference_mode():
            source = SourceIdentity(faces, self.swapper.identity(faces))
            if not bool(self.swapper.generator.supports(source.z_id, self.swapper.identity)):
                people = "the model paints only the people it was trained on, and this is none of them"
                raise UserError(f"{name}: {people}; use another picture, or a model for anybody")
        return source

    def read_source(self, path: Path) -> SourceIdentity:
        """The largest face of a file as a source. Raises UserError if it cannot be read or shows no face."""
        return replace(self.source(read_image(path), str(path)), path=path)

    def swap(self, source_frame: np.ndarray, target_frame: np.ndarray, face: str = "largest") -> np.ndarray:
        """The target's frame with the source's identity in the faces that `face` chooses.

        Frames are (H, W, 3) uint8. Raises UserError if a frame shows no face, or fewer than `face` says.
        """
        return self.swap_into(self.source(source_frame, "source"), target_frame, "target", face)

    def swap_into(self, source: SourceIdentity, frame: np.ndarray, name: str, face: str = "largest") -> np.ndarray:
        """A source put into a frame (H, W, 3) uint8; `name` is what errors call the frame. Errors as in `swap`."""
        return self.swap_faces(frame, [(each, source) for each in choose(self.find(frame, name), face, name)])

    def swap_faces(self, frame: np.ndarray, swaps: Sequence[tuple[Face, SourceIdentity]]) -> np.ndarray:
        """The frame (H, W, 3) uint8 with each face replaced by a source, one after the other."""
        return self.swap_frames([frame], [swaps])[0]

    def swap_frames(
        self, frames: Sequence[np.ndarray], swaps: Sequence[Sequence[tuple[Face, SourceIdentity]]]
    ) -> list[np.ndarray]:
        """`paint` for each of several frames; the networks see the faces of all of them together."""
        crops = [
            (place, align(frame, face, self.size), source)
            for place, (frame, wanted) in enumerate(zip(frames, swaps, strict=True))
            for face, source in wanted
        ]
        made = [frame.copy() if wanted else frame for frame, wanted in zip(frames, swaps, strict=True)]
        for start in range(0, len(crops), TOGETHER):
            places, aligned, sources = zip(*crops[start : start + TOGETHER], strict=True)
            for place, (crop, image, mask) in zip(places, self._swap_crops(sources, aligned), strict=True):
                # Networks that saw few grey faces tint them.
                image = grey(image) if is_grey(crop.image) else image
                paste_into(made[place], image, crop.matrix, mask)
        return made

    def crops(
        self, frame: np.ndarray, swaps: Sequence[tuple[Face, SourceIdentity]]
    ) -> list[tuple[AlignedFace, np.ndarray, np.ndarray]]:
        """What `paint` pastes: the crop of each face, its swap (S, S, 3) uint8, and how much of it is taken (S, S)."""
        return self._swap_crops([source for _, source in swaps], [align(frame, face, self.size) for face, _ in swaps])

    def embed(self, frame: np.ndarray, faces: Sequence[Face]) -> Tensor:
        """Embeddings (n, D) of faces of a frame (H, W, 3) uint8."""
        with torch.inference_mode():
            z_id: Tensor = self.swapper.identity(self._networks_input([align(frame, f, self.size) for f in faces]))
        return z_id

    def _swap_crops(
        self, sources: Sequence[SourceIdentity], crops: Sequence[AlignedFace]
    ) -> list[tuple[AlignedFace, np.ndarray, np.ndarray]]:
        """Each crop, its swap (S, S, 3) uint8 and how much of it to take (S, S)."""
        them = [source.faces for source in sources]
        who = FaceBatch.of(torch.cat([faces.image for faces in them]), torch.cat([faces.landmarks for faces in them]))
        targets = self._networks_input(crops)
        with torch.inference_mode(), autocast(self.device, self.bf16):
            z_id = torch.cat([source.z_id for source in sources])
            result = self.swapper(SwapBatch.of(who, targets), z_id)
        painted = None
        if result.mask is not None and result.image is result.coarse:  # the generator says where the target shows
            painted = result.mask[:, 0].float().clamp(0, 1).cpu().numpy()
        itself = None
        if self.paster.pasting.keep == OCCLUSIONS:
            with torch.inference_mode(), autocast(self.device, self.bf16):
                itself = to_images(self.swapper.coarse(SwapBatch.of(targets, targets), z_att=result.z_att).image)
        shown = np.stack([crop.image for crop in crops])
        made = self.paster(to_images(result.image), shown, targets, painted, itself)
        return [(crop, image, mask) for crop, (image, mask) in zip(crops, made, strict=True)]

    def _networks_input(self, crops: Sequence[AlignedFace]) -> FaceBatch:
        landmarks = np.stack([transform(crop.face.landmarks, crop.matrix) for crop in crops])
        image = to_tensor(np.stack([crop.image for crop in crops]))
        return FaceBatch.of(image, torch.from_numpy(landmarks).float()).to(self.device)

    @cached_property
    def weights_sha256(self) -> str | None:
        """Of all tensors that swap (see `digest`)."""
        return digest(self.swapper)

    def origin(self, marking: ProvenanceOptions) -> ProvenanceRecord:
        """What a new result says of itself; each has a watermark of its own."""
        pasting = self.paster.pasting.facts()
        precision = "bf16" if self.bf16 else None
        return ProvenanceRecord(
            self.model, self.weights_sha256, self.recipe_sha256, marking.consent, pasting, precision
        )
