"""Write sample images of an evaluation: source, target, swap and attention maps."""

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
from fsframework.media.tensor import swap_images, to_images

ROWS = 8


def write_samples(folder: Path, pairs: EvaluationPairs, swapper: Swapper, device: torch.device) -> None:
    """Write images of up to 8 evenly spaced pairs, and remove those of an earlier evaluation.

    Files are 000_source.png, 000_target.png, 000_swap.png, and with a refiner 000_coarse.png. For every attention map
    of the generator, coarse to fine, 000_map_0.png is a grey image: black is 0, white is 1.

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
    outputs = {"swap": swap_images(result.image, batch.target.image)}
    if swapper.refiner is not None:
        outputs["coarse"] = swap_images(result.coarse, batch.target.image)
    inputs = {"source": to_images(batch.source.image), "target": to_images(batch.target.image)}
    size = batch.target.image.shape[-1]
    inputs |= {f"map_{level}": _grey(values.float().cpu().numpy(), size) for level, values in enumerate(maps)}
    for kind, images in (inputs | outputs).items():
        for row, image in enumerate(images):
            write_image(folder / f"{row:03}_{kind}.png", image, synthetic=kind in outputs)


def clear(folder: Path, remedy: str) -> None:
    """Create a folder, or remove the numbered images in it. Raises UserError with `remedy` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9][0-9][0-9]_*.png"):
            old.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be used: {error.strerror or error}; {remedy}") from error


def few(pairs: EvaluationPairs) -> SwapBatch:
    """Return up to 8 evenly spaced pairs as one batch."""
    indices = spread(len(pairs.pairs))
    (batch,) = replace(pairs, pairs=[pairs.pairs[index] for index in indices], batch_size=len(indices))
    return batch


def spread(count: int) -> Sequence[int]:
    """Return up to 8 evenly spaced indices from 0 to `count` - 1."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(ROWS, count)).round()})


def _grey(maps: np.ndarray, size: int) -> np.ndarray:
    """Return maps (B, 1, h, w) in [0, 1] as grey images (B, size, size, 3) uint8, by nearest neighbour."""
    levels = np.rint(np.clip(maps[:, 0], 0, 1) * 255).astype(np.uint8)
    large = [cv2.resize(level, (size, size), interpolation=cv2.INTER_NEAREST) for level in levels]
    return np.repeat(np.stack(large)[..., None], 3, axis=-1)
