"""Pictures of a few pairs of an evaluation: source, target, swap, and where the identity acts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.core.types import SwapBatch
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_images

ROWS = 8


def write_samples(folder: Path, pairs: EvaluationPairs, swapper: Swapper, device: torch.device) -> None:
    """Write up to 8 pairs, spread over the list, and remove what an earlier evaluation left.

    Files are 000_source.png, 000_target.png, 000_swap.png, with a refiner 000_coarse.png, and 000_map_0.png (grey,
    black 0, white 1) for every attention map of the generator, coarse to fine.

    Raises
    ------
    UserError
        A file cannot be written.
    """
    clear(folder, "check its permissions")
    batch = few(pairs)
    with torch.no_grad():
        result = swapper(batch.to(device))
        maps = swapper.generator.maps(result.z_id, result.z_att)
    made = {"swap": to_images(result.image)}
    if swapper.refiner is not None:
        made["coarse"] = to_images(result.coarse)
    given = {"source": to_images(batch.source.image), "target": to_images(batch.target.image)}
    size = batch.target.image.shape[-1]
    given |= {f"map_{level}": _grey(values.float().cpu().numpy(), size) for level, values in enumerate(maps)}
    for kind, images in (given | made).items():
        for row, image in enumerate(images):
            write_image(folder / f"{row:03}_{kind}.png", image, synthetic=kind in made)


def clear(folder: Path, remedy: str) -> None:
    """Make a folder, or remove the numbered pictures in it. Raises UserError, with what to do, if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9][0-9][0-9]_*.png"):
            old.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be used: {error.strerror or error}; {remedy}") from error


def few(pairs: EvaluationPairs) -> SwapBatch:
    """Up to 8 pairs, spread over the list, as one batch."""
    places = spread(len(pairs.pairs))
    (batch,) = replace(pairs, pairs=[pairs.pairs[place] for place in places], batch_size=len(places))
    return batch


def spread(count: int) -> Sequence[int]:
    """Up to 8 places from the first to the last of so many."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(ROWS, count)).round()})


def _grey(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (B, 1, h, w) in [0, 1] as grey pictures (B, size, size, 3) uint8 with visible pixels."""
    levels = np.rint(np.clip(maps[:, 0], 0, 1) * 255).astype(np.uint8)
    large = [cv2.resize(level, (size, size), interpolation=cv2.INTER_NEAREST) for level in levels]
    return np.repeat(np.stack(large)[..., None], 3, axis=-1)
