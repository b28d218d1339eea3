"""What a method makes of identities and attributes, as pictures: between two people, and who is shown alike.

FaceShifter (arXiv:1912.13457, section 4.3 and its supplement) shows faces whose attribute embeddings are nearest to
each other, level by level, and analyses what identity and attributes each decide.
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
from fsframework.media.tensor import to_images

INTERPOLATION, ATTRIBUTES = "interpolation", "attributes"
ROWS, STEPS = 4, 5  # of pictures; between two people, both ends included
SEARCHED = 256  # faces, at most, among which neighbours are looked for
BATCH = 32


@torch.no_grad()
def visualize(swapper: Swapper, pairs: EvaluationPairs, device: torch.device) -> dict[str, np.ndarray]:
    """The pictures that a method allows, (H, W, 3) uint8 by kind; those of INTERPOLATION are synthetic.

    Identities are interpolated where their embeddings have a meaning between them (`IdentityEncoder.metric`) and the
    generator paints anybody. Attributes are compared where there are maps of more than one level.
    """
    found = {}
    batch = few(pairs).to(device)
    if swapper.identity.metric and not isinstance(swapper.generator, ClosedSetGenerator):
        found[INTERPOLATION] = identity_interpolation(swapper, batch)
    if len(swapper.attributes.channels) > 1:
        found[ATTRIBUTES] = attribute_neighbours(swapper, pairs, device)
    return found


def identity_interpolation(swapper: Swapper, batch: SwapBatch) -> np.ndarray:
    """Targets swapped with people between two sources: each row's own, and the next row's."""
    z_id = swapper.identity(batch.source)
    count = min(ROWS, len(z_id))
    part = SwapBatch.of(FaceBatch.of(batch.source.image[:count]), FaceBatch.of(batch.target.image[:count]))
    own, other = z_id[:count], z_id.roll(-1, 0)[:count]
    columns = {"source": list(to_images(batch.source.image[:count]))}
    for share in np.linspace(0, 1, STEPS):
        swaps = swapper(part, _between(own, other, float(share))).image
        columns[f"{100 * share:.0f} %"] = list(to_images(swaps))
    columns["other source"] = list(to_images(batch.source.image.roll(-1, 0)[:count]))
    columns["target"] = list(to_images(batch.target.image[:count]))
    return grid(columns)


def attribute_neighbours(swapper: Swapper, pairs: EvaluationPairs, device: torch.device) -> np.ndarray:
    """Targets, and for every level the other face whose attribute map is nearest (L2)."""
    faces, persons = pairs.dataset, pairs.dataset.persons()
    asked = [target for _, target in (pairs.pairs[place] for place in spread(len(pairs.pairs)))][:ROWS]
    places = sorted({*np.linspace(0, len(faces) - 1, min(SEARCHED, len(faces))).round().astype(int).tolist(), *asked})
    maps: list[list[Tensor]] = []
    for start in range(0, len(places), BATCH):
        part = places[start : start + BATCH]
        batch = collate([faces[place] for place in part], part, persons)
        maps.append([level.flatten(1).cpu() for level in swapper.attributes(batch.to(device))])
    levels = [torch.cat(each) for each in zip(*maps, strict=True)]  # (N, C H W) each
    rows = [places.index(place) for place in asked]
    columns = {"target": [faces[place].image for place in asked]}
    for number, level in enumerate(levels):
        apart = torch.cdist(level[rows], level)
        apart[torch.arange(len(rows)), rows] = torch.inf
        columns[f"level {number + 1}"] = [faces[places[k]].image for k in apart.argmin(dim=1).tolist()]
    return grid(columns)


def _between(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Embeddings (B, D) of unit length on the way from one to the other, on the sphere."""
    angle = torch.acos((one * other).sum(dim=1, keepdim=True).clamp(-1, 1))
    ends = torch.sin(angle).clamp(min=1e-6)
    straight = (1 - share) * one + share * other
    round_about = (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * other) / ends
    return torch.where(angle < 1e-3, straight, round_about)
