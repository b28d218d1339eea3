"""Visualize identity interpolation and nearest neighbours of attribute maps.

FaceShifter (arXiv:1912.13457, section 4.3 and its supplement) shows the nearest neighbours of attribute embeddings,
level by level. It analyses which properties the identity and the attributes each determine.
"""

import numpy as np
import torch
from torch import Tensor

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch
from fsframework.data.collate import collate
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.evaluation.samples import few, spread
from fsframework.media.draw import grid
from fsframework.media.tensor import swap_images, to_images

INTERPOLATION, ATTRIBUTES = "interpolation", "attributes"
ROWS, STEPS = 4, 5  # rows of each image; interpolation steps, both ends included
SEARCHED = 256  # maximum number of faces in the search for neighbours
BATCH = 32


@torch.no_grad()
def visualize(swapper: Swapper, pairs: EvaluationPairs, device: torch.device) -> dict[str, np.ndarray]:
    """Return the applicable visualizations, (H, W, 3) uint8 by kind; those of INTERPOLATION are synthetic.

    Identities are interpolated where embeddings form a metric space (`IdentityEncoder.metric`) and the generator
    accepts any identity. Attributes are compared where the encoder returns maps of more than one level.
    """
    images = {}
    batch = few(pairs).to(device)
    if swapper.identity.metric and not isinstance(swapper.generator, ClosedSetGenerator):
        images[INTERPOLATION] = identity_interpolation(swapper, batch)
    if len(swapper.attributes.channels) > 1:
        images[ATTRIBUTES] = attribute_neighbours(swapper, pairs, device)
    return images


def identity_interpolation(swapper: Swapper, batch: SwapBatch) -> np.ndarray:
    """Draw swaps with identities between the sources of each row and the next; return an image (H, W, 3) uint8."""
    z_id = swapper.identity(batch.source)
    count = min(ROWS, len(z_id))
    part = SwapBatch.of(FaceBatch.of(batch.source.image[:count]), FaceBatch.of(batch.target.image[:count]))
    start, end = z_id[:count], z_id.roll(-1, 0)[:count]
    columns = {"source": list(to_images(batch.source.image[:count]))}
    for fraction in np.linspace(0, 1, STEPS):
        swaps = swapper(part, _slerp(start, end, float(fraction))).image
        columns[f"{100 * fraction:.0f} %"] = list(swap_images(swaps, part.target.image))
    columns["other source"] = list(to_images(batch.source.image.roll(-1, 0)[:count]))
    columns["target"] = list(to_images(batch.target.image[:count]))
    return grid(columns)


def attribute_neighbours(swapper: Swapper, pairs: EvaluationPairs, device: torch.device) -> np.ndarray:
    """Draw targets with the nearest other face (L2) by the attribute map of each level; return (H, W, 3) uint8."""
    faces, persons = pairs.dataset, pairs.dataset.persons()
    queries = [target for _, target in (pairs.pairs[index] for index in spread(len(pairs.pairs)))][:ROWS]
    gallery = sorted(
        {*np.linspace(0, len(faces) - 1, min(SEARCHED, len(faces))).round().astype(int).tolist(), *queries}
    )
    maps: list[list[Tensor]] = []
    for start in range(0, len(gallery), BATCH):
        part = gallery[start : start + BATCH]
        batch = collate([faces[index] for index in part], part, persons)
        maps.append([level.flatten(1).cpu() for level in swapper.attributes(batch.to(device))])
    levels = [torch.cat(parts) for parts in zip(*maps, strict=True)]  # (N, C H W) each
    rows = [gallery.index(query) for query in queries]
    columns = {"target": [faces[query].image for query in queries]}
    for number, level in enumerate(levels):
        distances = torch.cdist(level[rows], level)
        distances[torch.arange(len(rows)), rows] = torch.inf
        columns[f"level {number + 1}"] = [faces[gallery[k]].image for k in distances.argmin(dim=1).tolist()]
    return grid(columns)


def _slerp(start: Tensor, end: Tensor, fraction: float) -> Tensor:
    """Return unit embeddings (B, D) by spherical linear interpolation from `start` to `end`."""
    angle = torch.acos((start * end).sum(dim=1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle).clamp(min=1e-6)
    linear = (1 - fraction) * start + fraction * end
    spherical = (torch.sin((1 - fraction) * angle) * start + torch.sin(fraction * angle) * end) / sine
    return torch.where(angle < 1e-3, linear, spherical)
