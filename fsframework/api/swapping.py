"""Swap faces from Python: `load_swapper` and the results of a swap."""

import io
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.paste import DEFAULT_PASTE, PasteOptions, paste
from fsframework.faces.select import check_face, choose
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.inference.jobs import AssignmentFiles, JobList, SwapOptions, target_jobs
from fsframework.inference.runner import run_jobs
from fsframework.inference.soft_swap import size_note
from fsframework.media.animation_io import is_film
from fsframework.media.image_io import TargetImage, read_image, read_target, to_rgb, writable_format, write_image
from fsframework.media.video_encoder import DEFAULT_VIDEO, VideoOptions
from fsframework.models.store import DEFAULT
from fsframework.ops.precision import Precision
from fsframework.provenance.options import ProvenanceOptions, mark_frame, write_swap
from fsframework.utils.executors import SERIAL, Executor
from fsframework.utils.files import check_place
from fsframework.utils.shards import WHOLE, JobShard

Picture = str | Path | Image.Image | np.ndarray
Provenance = bool | ProvenanceOptions


def load_swapper(
    name_or_path: str | Path | None = None,
    device: str | None = None,
    runtime: Literal["auto", "torch", "openvino", "onnx"] | None = "auto",
    precision: Precision = "fp32",
    paste: PasteOptions = DEFAULT_PASTE,
) -> "SwapPipeline":
    """Load a trained method and return the pipeline that swaps with it.

    Parameters
    ----------
    name_or_path:
        The name of an installed model (see `list_models`), a model's file or a run's folder. None: the default model.
    device:
        A torch device. None: the GPU if there is one.
    runtime:
        What runs the swapping networks. "auto": OpenVINO on CPUs, where it is installed and can run the model, else
        torch. None: torch. Both are onnxruntime for files that end in .onnx.
    precision:
        "auto" is bfloat16 on hardware with bfloat16 matrix units, else float32. Precision of the swapping networks.
    paste:
        How swapped crops are pasted into their images.

    Raises
    ------
    UserError
        There is no such model, it is not a face swapper, or it does not support an option.
    """
    return SwapPipeline(
        FaceSwapper(DEFAULT if name_or_path is None else name_or_path, device, paste, precision, runtime)
    )


class SwapPipeline:
    """Detects, aligns, swaps and pastes faces with one trained method; built by `load_swapper`.

    Images are paths, PIL images or (H, W, 3) uint8 RGB arrays. `faces` selects among the faces of an image: "largest"
    (by the area of its box), "all", or a number counted from the left from 1.
    """

    def __init__(self, face_swapper: FaceSwapper) -> None:
        self.face_swapper = face_swapper

    def __repr__(self) -> str:
        """Return a text with the model, its crop size and the device."""
        return f"SwapPipeline({self.face_swapper.model}, {self.face_swapper.size} px, {self.face_swapper.device})"

    def detect(self, image: Picture) -> list[Face]:
        """Return the faces of an image, highest score first. Raise UserError if it cannot be read or has none."""
        frame, path = _read(image, "image")
        return self.face_swapper.find(frame, _name(path, "image"))

    def embed(self, image: Picture, faces: str | int = "largest") -> np.ndarray:
        """Return the identity embeddings (n, D) float32 of the selected faces. Raise UserError as `detect` does."""
        frame, path = _read(image, "image")
        name = _name(path, "image")
        chosen = choose(self.face_swapper.find(frame, name), str(faces), name)
        return self.face_swapper.embed(frame, chosen).float().cpu().numpy()

    def read_source(self, image: Picture) -> SourceIdentity:
        """Return the identity of the largest face of an image, for any number of calls of `swap`.

        Raises UserError if the image cannot be read, has no face, or the model does not support this person.
        """
        if isinstance(image, str | Path):
            return self.face_swapper.read_source(Path(image))
        return self.face_swapper.source(_read(image, "source")[0], "source")

    def swap(
        self,
        source: Picture | SourceIdentity,
        target: Picture,
        faces: str | int = "largest",
        provenance: Provenance = True,
        private_metadata: bool = False,
    ) -> "SwappedImage":
        """Return the target with the source's identity in the selected faces.

        Parameters
        ----------
        source:
            An image, whose largest face is used, or the result of `read_source`.
        target:
            The image whose faces are replaced.
        faces:
            Which faces of the target.
        provenance:
            True: watermark and manifest. False: neither, which the ledger records when the result is saved.
            `ProvenanceOptions` adds a visible label or a consent.
        private_metadata:
            Keep the place, serial numbers, the owner's name and maker notes of a target's file, too.

        Raises
        ------
        UserError
            An image cannot be read or has no such face.
        """
        check_face(str(faces))
        identity = source if isinstance(source, SourceIdentity) else self.read_source(source)
        path = Path(target) if isinstance(target, str | Path) else None
        decoded = (
            TargetImage(_read(target, "target")[0])
            if path is None
            else read_target(path, private_metadata=private_metadata)
        )
        name = _name(path, "target")
        chosen = choose(self.face_swapper.find(decoded.frame, name), str(faces), name)
        return SwappedImage(self.face_swapper, identity, decoded, path, chosen, _options(provenance))

    def swap_video(
        self,
        source: str | Path,
        target: str | Path,
        out: str | Path,
        faces: str | int = "largest",
        provenance: Provenance = True,
        video: VideoOptions = DEFAULT_VIDEO,
        private_metadata: bool = False,
    ) -> Path:
        """Write the video or moving picture `target` with swapped faces to `out`, and return that path.

        Faces are tracked and sound is kept. An interrupted call resumes when it is repeated. A line on standard error
        reports faces that are much larger than the model's crops, or too small. `video` chooses encoder and quality.
        The place of the metadata is kept only with `private_metadata`.

        Raises
        ------
        UserError
            A file cannot be read, the video has no such face, or the result cannot be written or signed.
        """
        source, target, out = map(Path, (source, target, out))
        if not is_film(target):
            raise UserError(f"{target}: is not a video; use swap for images")
        options = SwapOptions(_options(provenance), video=video, private_metadata=private_metadata)
        self.swap_jobs(target_jobs(target, out, AssignmentFiles(str(faces), source), options))
        return out

    def swap_jobs(self, jobs: JobList, shard: JobShard = WHOLE, executor: Executor = SERIAL) -> int:
        """Run jobs of `target_jobs` or `pairs_jobs`, and return the number of failures.

        Parameters
        ----------
        jobs:
            The jobs of one target, a folder or a CSV file.
        shard, executor:
            The part of the jobs to run, and the executor.

        Raises
        ------
        UserError
            The only job fails, or the output folder cannot be used. Failures in lists are printed on standard error.
        """
        return run_jobs(self.face_swapper, jobs, shard, executor)


class SwappedImage:
    """The result of a swap, with an invisible watermark unless `provenance=False`."""

    faces: list[Face]  # the swapped faces of the target

    def __init__(
        self,
        face_swapper: FaceSwapper,
        source: SourceIdentity,
        target: TargetImage,
        path: Path | None,
        faces: Sequence[Face],
        provenance: ProvenanceOptions,
    ) -> None:
        self.faces = list(faces)
        self._face_swapper, self._source, self._provenance = face_swapper, source, provenance
        self._target, self._target_path = target, path
        self._record = face_swapper.origin(provenance)
        self._unmarked = face_swapper.swap_faces(target.frame, self._swaps)
        self.image = mark_frame(self._unmarked, provenance, self._record.watermark)  # (H, W, 3) uint8 RGB
        self.image.setflags(write=False)  # `save` writes these pixels

    def __repr__(self) -> str:
        """Return a text with the size and the number of swapped faces."""
        height, width = self.image.shape[:2]
        return f"SwappedImage({width} x {height}, {len(self.faces)} swapped)"

    @property
    def _swaps(self) -> list[tuple[Face, SourceIdentity]]:
        return [(face, self._source) for face in self.faces]

    @cached_property
    def note(self) -> str | None:
        """Return which faces are too large or too small for the model and what to do; None if there are none."""
        return size_note(self.faces, self._face_swapper.size)

    @cached_property
    def masks(self) -> np.ndarray:
        """Return the masks of the swapped faces in the target: (n, H, W) uint8, 255 where it is replaced."""
        empty = np.zeros_like(self._target.frame)
        crops = self._face_swapper.crops(self._target.frame, self._swaps)
        return np.stack([paste(empty, np.full_like(swap, 255), crop.matrix, m)[..., 0] for crop, swap, m in crops])

    def to_pil(self) -> Image.Image:
        """Return `image` as a PIL image."""
        return Image.fromarray(self.image)

    def save(self, out: str | Path) -> Path:
        """Write the image with XMP, watermark and signed manifest, atomically, and return the path.

        The suffix selects the format: .jpg, .png, .webp or .tif. Colour profile, EXIF and transparency of a target's
        file are kept, transparency not in JPEG. With `provenance=False` only XMP is written.

        Raises
        ------
        UserError
            The path is that of an input, or the image cannot be written or signed.
        """
        out = Path(out)
        sources = [] if self._source.path is None else [self._source.path]
        writable_format(out)
        check_place(out, *sources, *([] if self._target_path is None else [self._target_path]))
        self._provenance.check()
        with tempfile.TemporaryDirectory() as folder:
            target = self._target_path
            if target is None:  # the manifest hashes the target's file, and an array has none
                target = Path(folder) / "target.png"
                write_image(target, self._target.frame, synthetic=False)
            write_swap(out, self._unmarked, self._record, self._provenance, target, sources, self._target)
        return out

    def _repr_png_(self) -> bytes:
        """Return a PNG for display in notebooks."""
        buffer = io.BytesIO()
        self.to_pil().save(buffer, "PNG")
        return buffer.getvalue()


def _options(provenance: Provenance) -> ProvenanceOptions:
    return provenance if isinstance(provenance, ProvenanceOptions) else ProvenanceOptions(provenance)


def _read(image: Picture, role: str) -> tuple[np.ndarray, Path | None]:
    """Return an image as (H, W, 3) uint8 with its path, if any. Raise UserError for unsupported values."""
    if isinstance(image, str | Path):
        return read_image(image), Path(image)
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image), None
        except ValueError as error:
            raise UserError(f"{role}: {error}; convert it to RGB") from None
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"{role}: is {kind}; give a path, a PIL image or an array (H, W, 3) of uint8")
    return image, None


def _name(path: Path | None, role: str) -> str:
    return role if path is None else str(path)
