"""Embeddings of all original images of a dataset, cached on disk by content."""

import hashlib
import inspect
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fsframework.core.components import Dataset, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.data.collate import collate
from fsframework.utils.files import cache_folder, replacing
from fsframework.utils.progress import progress
from fsframework.utils.weights import digest

FORMAT = 1  # version of the cache; to be raised when the same encoder yields other embeddings


class Gallery:
    """Embeddings of datasets by one encoder.

    The file name is a hash of the images' pixels and of the encoder's options, weights and code. Errors of the cache
    are ignored.

    Parameters
    ----------
    encoder:
        Encoder with loaded weights.
    label:
        Prefix of the progress bar.
    batch:
        Images per batch.
    """

    def __init__(self, encoder: IdentityEncoder, label: str, batch: int = 64) -> None:
        self._encoder, self._label, self._batch = encoder, label, batch
        self._held: tuple[Dataset, Tensor] | None = None

    @torch.no_grad()
    def vectors(self, faces: Dataset, device: torch.device) -> Tensor:
        """Return the embeddings (N, D) float32 of all faces, on the device. Raises UserError if there are no faces."""
        if self._held is None or self._held[0] is not faces:
            if not len(faces):
                raise UserError(f"{self._label}: the gallery is empty; add pictures to the data")
            file = cache_folder() / f"vectors-{self._content(faces)}.npy"
            vectors = _read(file, len(faces))
            if vectors is None:
                vectors = self._embed(faces, device)
                _write(file, vectors)
            self._held = faces, torch.from_numpy(vectors).to(device)
        return self._held[1]

    def _content(self, faces: Dataset) -> str:
        encoder = self._encoder
        code = inspect.getsource(inspect.getmodule(type(encoder)) or type(encoder))
        key = [str(FORMAT), encoder.name, repr(encoder.options), str(digest(encoder)), code]
        content = hashlib.sha256(json.dumps(key).encode())
        for index in range(len(faces)):
            sample = faces[index]
            content.update(repr(sample.image.shape).encode() + sample.image.tobytes() + sample.landmarks.tobytes())
        return content.hexdigest()[:32]

    def _embed(self, faces: Dataset, device: torch.device) -> np.ndarray:
        people, vectors = faces.persons(), []
        with progress(f"{self._label}: gallery", len(faces), "faces") as ticker:
            for start in range(0, len(faces), self._batch):
                indices = range(start, min(start + self._batch, len(faces)))
                samples = collate([faces[index] for index in indices], indices, people)
                vectors.append(self._encoder(samples.to(device)).float().cpu().numpy())
                ticker.advance(len(indices))
        return np.concatenate(vectors)


def _read(file: Path, count: int) -> np.ndarray | None:
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = (
        isinstance(vectors, np.ndarray) and vectors.ndim == 2 and len(vectors) == count and vectors.dtype == np.float32
    )
    return vectors if fits else None


def _write(file: Path, vectors: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as out:
            np.save(out, vectors)
    except (OSError, UserError):
        return  # the cache is optional
