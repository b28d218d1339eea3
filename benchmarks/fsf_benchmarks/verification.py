"""Verification: can a recogniser tell whether two pictures show one person? What a judge is worth."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from fsf_benchmarks.gallery import Gallery
from fsframework.components import Benchmark, ComponentOptions, Dataset, IdentityEncoder
from fsframework.environment import environment
from fsframework.errors import UserError
from fsframework.plugins import Part, use

FOLDS = 10


class Verification(Benchmark):
    """How well an identity encoder knows people again. Needs no run: `fsf bench verification --set judge={use: NAME}`.

    `accuracy` is that of Huang et al.'s protocol for LFW (2007): as many pairs of one person as of two, in ten folds of
    pairs, each judged by the threshold that is best on the other nine. The pairs are not theirs: all of one person,
    up to `pairs`, and random others. `rank1` is the share of pictures, of people with several, whose nearest other
    picture shows the same person. Folds share people, so intervals would be too narrow and none is given.
    """

    name = "verification"
    alone = True
    figures: ClassVar = {}

    class Options(ComponentOptions):
        judge: Annotated[Part, use("identity-encoders")] = Field(description="The recogniser that is measured.")
        data: Annotated[Part, use("datasets")] = Field(
            default={"use": "orl"}, validate_default=True, description="The people."
        )
        detector: Annotated[Part, use("detectors")] = Field(
            default={"use": "mtcnn"}, validate_default=True, description="Finds faces in pictures."
        )
        size: int = Field(64, ge=16, description="Side of the crops in pixels.")
        split: Literal["train", "test", "all"] = Field("test", description="Which people.")
        pairs: int = Field(3000, ge=FOLDS, description="Pairs of one person at most; as many of two.")
        seed: int = Field(0, ge=0, description="Of the pairs that are drawn.")

    options: Options

    def measure(self, device: torch.device) -> dict[str, Any]:
        options = self.options
        faces: Dataset = options.data.build(options.size, options.detector, options.split)
        faces.load()
        people = faces.persons()
        same, different = pairs_of(people, options.pairs, np.random.default_rng(options.seed))
        if len(same) < FOLDS:
            raise UserError(f"{self.name}: data: shows {len(same)} pairs of one person, {FOLDS} are needed; add faces")
        vectors = embed(options.judge, faces, device)
        alike, unlike = ((vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1) for pairs in (same, different))
        row = {
            "judge": options.judge.name,
            "faces": len(faces),
            "pairs": len(same) + len(different),
            "accuracy_percent": round(100 * accuracy(alike, unlike), 2),
            "rank1_percent": round(100 * rank1(vectors, people), 2),
            "cosine_same": round(float(alike.mean()), 3),
            "cosine_different": round(float(unlike.mean()), 3),
        }
        return {"rows": [row], **environment(device)}


def embed(judge: Part, faces: Dataset, device: torch.device) -> np.ndarray:
    """Embeddings (N, D) float64 of all faces."""
    encoder: IdentityEncoder = judge.build()
    encoder.load()
    encoder.to(device).eval()
    return Gallery(encoder, "verification").vectors(faces, device).double().cpu().numpy()


def pairs_of(people: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of pairs of one person (n, 2), `count` at most, and as many of two; people are numbers, -1 unknown."""
    known = np.flatnonzero(people >= 0)
    one, other = np.triu_indices(len(known), 1)
    one, other = known[one], known[other]
    equal = people[one] == people[other]
    same, different = (np.stack([one[chosen], other[chosen]], axis=1) for chosen in (equal, ~equal))
    count = min(count, len(same), len(different))
    return rng.permutation(same)[:count], rng.permutation(different)[:count]


def accuracy(alike: np.ndarray, unlike: np.ndarray) -> float:
    """Share of right answers on cosines (n,) of pairs of one person and of two, ten folds."""
    right = 0
    for fold in range(FOLDS):
        tested = np.arange(len(alike)) % FOLDS == fold
        threshold = best_threshold(alike[~tested], unlike[~tested])
        right += int((alike[tested] >= threshold).sum() + (unlike[tested] < threshold).sum())
    return right / (len(alike) + len(unlike))


def best_threshold(alike: np.ndarray, unlike: np.ndarray) -> float:
    """The cosine from which on pairs are best called one person's, halfway to the next one below."""
    candidates = np.sort(np.concatenate([alike, unlike]))
    missed = np.searchsorted(np.sort(alike), candidates)  # of one person, below
    rejected = np.searchsorted(np.sort(unlike), candidates)  # of two, below
    best = int(np.argmax(rejected - missed))
    return float(candidates[max(best - 1, 0) : best + 1].mean())


def rank1(vectors: np.ndarray, people: np.ndarray) -> float:
    """Share of pictures, of people with several, whose nearest other picture shows the same person."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    several = np.flatnonzero((people >= 0) & (np.bincount(people.clip(0), minlength=people.max() + 1)[people] > 1))
    return float((people[cosines[several].argmax(axis=1)] == people[several]).mean())
