"""Face verification accuracy of an identity encoder, and its match threshold."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from fsf_benchmarks.gallery import Gallery
from fsframework.core.components import Benchmark, ComponentOptions, Dataset, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.part import Part, use
from fsframework.utils.environment import environment

FOLDS = 10
FALSE_ACCEPTS = 10  # minimum number of false accepts for a false-accept rate
ROWS = 1024  # embeddings per block of the cosine matrix


class Verification(Benchmark):
    """Measure face verification by an identity encoder. Needs no run: `fsf bench verification --set judge={use: NAME}`.

    `accuracy` follows Huang et al.'s protocol for LFW (2007): equal numbers of genuine and impostor pairs in ten folds,
    each with the threshold that is best on the other nine. The pairs differ from theirs: all genuine pairs, up to
    `pairs`, and random impostor pairs. `rank1` is the fraction of images, of people with several, whose nearest other
    image shows the same person. Folds share people, so confidence intervals would be too narrow and are omitted.

    `threshold` is the cosine with false-accept rate `far` over all impostor pairs, and `tar_percent` the true-accept
    rate at this threshold. An encoder's `match_threshold` is such a threshold. With too few pairs for the requested
    rate, `far` is the lowest rate with ten false accepts.
    """

    name = "verification"
    standalone = True
    metrics: ClassVar = {}

    class Options(ComponentOptions):
        judge: Annotated[Part, use("identity-encoders")] = Field(description="Identity encoder to measure.")
        data: Annotated[Part, use("datasets")] = Field(
            default={"use": "orl"}, validate_default=True, description="Dataset of people."
        )
        detector: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn"}, validate_default=True, description="Face detector."
        )
        size: int = Field(64, ge=16, description="Side of the crops in pixels.")
        split: Literal["train", "test", "all"] = Field("test", description="Split of the people.")
        pairs: int = Field(3000, ge=FOLDS, description="Maximum number of pairs of one person; as many of two.")
        seed: int = Field(0, ge=0, description="Seed of the random pairs.")
        far: float = Field(1e-3, gt=0, lt=1, description="False-accept rate of the threshold, over all pairs.")

    options: Options

    def measure(self, device: torch.device) -> dict[str, Any]:
        options = self.options
        faces: Dataset = options.data.build(options.size, options.detector, options.split)
        faces.load()
        people = faces.persons()
        same, different = pairs_of(people, options.pairs, np.random.default_rng(options.seed))
        if len(same) < FOLDS:
            raise UserError(f"{self.name}: data: has {len(same)} pairs of one person, {FOLDS} are needed; add faces")
        vectors = embed(options.judge, faces, device)
        alike, unlike = ((vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1) for pairs in (same, different))
        all_alike, all_unlike = all_cosines(vectors, people)
        threshold, far = threshold_at(all_unlike, options.far)
        row = {
            "judge": options.judge.name,
            "faces": len(faces),
            "pairs": len(same) + len(different),
            "accuracy_percent": round(100 * accuracy(alike, unlike), 2),
            "rank1_percent": round(100 * rank1(vectors, people), 2),
            "cosine_same": round(float(alike.mean()), 3),
            "cosine_different": round(float(unlike.mean()), 3),
            "pairs_different": len(all_unlike),
            "far": far,
            "threshold": round(threshold, 3),
            "tar_percent": round(100 * float((all_alike >= threshold).mean()), 2),
        }
        return {"rows": [row], **environment(device)}


def embed(judge: Part, faces: Dataset, device: torch.device) -> np.ndarray:
    """Return the embeddings (N, D) float64 of all faces."""
    encoder: IdentityEncoder = judge.build()
    encoder.load()
    encoder.to(device).eval()
    return Gallery(encoder, "verification").vectors(faces, device).double().cpu().numpy()


def pairs_of(people: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return index pairs (n, 2) of one person, at most `count`, and as many of two; people are numbers, -1 unknown."""
    known = np.flatnonzero(people >= 0)
    first, second = np.triu_indices(len(known), 1)
    first, second = known[first], known[second]
    equal = people[first] == people[second]
    same, different = (np.stack([first[chosen], second[chosen]], axis=1) for chosen in (equal, ~equal))
    count = min(count, len(same), len(different))
    return rng.permutation(same)[:count], rng.permutation(different)[:count]


def all_cosines(vectors: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines (n,) float32 of all pairs of one person, and of two; people are numbers, -1 unknown."""
    known = np.flatnonzero(people >= 0)
    vectors, people = vectors[known].astype(np.float32), people[known]
    alike, unlike = [], []
    for start in range(0, len(known), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        rows, columns = np.arange(start, start + len(cosines))[:, None], np.arange(len(known))
        same, once = people[rows] == people, columns > rows
        alike.append(cosines[same & once])
        unlike.append(cosines[~same & once])
    return np.concatenate(alike), np.concatenate(unlike)


def threshold_at(unlike: np.ndarray, far: float) -> tuple[float, float]:
    """Return the cosine at which a share of the pairs of two people (n,) is accepted, and that share.

    The share is `far`, or the lowest with FALSE_ACCEPTS accepted pairs, where there are too few pairs for `far`.
    """
    accepted = min(max(round(far * len(unlike)), FALSE_ACCEPTS), len(unlike))
    index = len(unlike) - accepted
    rate = far if accepted == round(far * len(unlike)) else float(f"{accepted / len(unlike):.3g}")
    return float(np.partition(unlike, index)[index]), rate


def accuracy(alike: np.ndarray, unlike: np.ndarray) -> float:
    """Return the ten-fold cross-validated accuracy on cosines (n,) of pairs of one person and of two."""
    right = 0
    for fold in range(FOLDS):
        tested = np.arange(len(alike)) % FOLDS == fold
        threshold = best_threshold(alike[~tested], unlike[~tested])
        right += int((alike[tested] >= threshold).sum() + (unlike[tested] < threshold).sum())
    return right / (len(alike) + len(unlike))


def best_threshold(alike: np.ndarray, unlike: np.ndarray) -> float:
    """Return the threshold with the highest accuracy, halfway to the next lower cosine."""
    candidates = np.sort(np.concatenate([alike, unlike]))
    missed = np.searchsorted(np.sort(alike), candidates)  # of one person, below
    rejected = np.searchsorted(np.sort(unlike), candidates)  # of two, below
    best = int(np.argmax(rejected - missed))
    return float(candidates[max(best - 1, 0) : best + 1].mean())


def rank1(vectors: np.ndarray, people: np.ndarray) -> float:
    """Return the fraction of images, of people with several, whose nearest other image shows the same person."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    several = np.flatnonzero((people >= 0) & (np.bincount(people.clip(0), minlength=people.max() + 1)[people] > 1))
    return float((people[cosines[several].argmax(axis=1)] == people[several]).mean())
