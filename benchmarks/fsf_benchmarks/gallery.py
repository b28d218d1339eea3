"""Vectors of all original pictures of a data set, computed once and kept on the disk by their content."""

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

FORMAT = 1  # changes when the same encoder would make other vectors of the same pictures


class Gallery:
    """One encoder's vectors of data sets.

    The file's name is a hash of the pictures' pixels and of the encoder's options, weights and code. A cache that
    cannot be read or written is done without.

    Parameters
    ----------
    encoder:
        Loaded before anything is asked.
    label:
        Stands before the progress.
    batch:
        Pictures that are embedded at once.
    """

    def __init__(self, encoder: IdentityEncoder, label: str, batch: int = 64) -> None:
        self._encoder, self._label, self._batch = encoder, label, batch
        self._held: tuple[Dataset, Tensor] | None = None

    @torch.no_grad()
    def vectors(self, faces: Dataset, device: torch.device) -> Tensor:
        """The vectors (N, D) float32 of all faces, on the device. Raises UserError if there are none."""
        if self._held is None or self._held[0] is not faces:
            if not len(faces):
                raise UserError(f"{self._label}: the gallery is empty; add pictures to the data")
            file = cache_folder() / f"vectors-{self._content(faces)}.npy"
            found = _read(file, len(faces))
            if found is None:
                found = self._embed(faces, device)
                _write(file, found)
            self._held = faces, torch.from_numpy(found).to(device)
        return self._held[1]

    def _content(self, faces: Dataset) -> str:
        encoder = self._encoder
        code = inspect.getsource(inspect.getmodule(type(encoder)) or type(encoder))
        about = [str(FORMAT), encoder.name, repr(encoder.options), str(digest(encoder)), code]
        found = hashlib.sha256(json.dumps(about).encode())
        for place in range(len(faces)):
            sample = faces[place]
            found.update(repr(sample.image.shape).encode() + sample.image.tobytes() + sample.landmarks.tobytes())
        return found.hexdigest()[:32]

    def _embed(self, faces: Dataset, device: torch.device) -> np.ndarray:
        people, found = faces.persons(), []
        with progress(f"{self._label}: gallery", len(faces), "faces") as ticker:
            for start in range(0, len(faces), self._batch):
                places = range(start, min(start + self._batch, len(faces)))
                samples = collate([faces[place] for place in places], places, people)
                found.append(self._encoder(samples.to(device)).float().cpu().numpy())
                ticker.advance(len(places))
        return np.concatenate(found)


def _read(file: Path, count: int) -> np.ndarray | None:
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = isinstance(found, np.ndarray) and found.ndim == 2 and len(found) == count and found.dtype == np.float32
    return found if fits else None


def _write(file: Path, vectors: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary, temporary.open("wb") as out:
            np.save(out, vectors)
    except (OSError, UserError):
        return  # next time they are computed again
