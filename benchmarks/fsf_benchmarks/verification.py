"""Face verification: accuracy of an identity encoder, and the cosine from which two faces match."""

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
FALSE_ACCEPTS = 10  # fewest that a false-accept rate may rest on
ROWS = 1024  # embeddings that are compared with all others at once


class Verification(Benchmark):
    """Measure face verification by an identity encoder. Needs no run: `fsf bench verification --set judge={use: NAME}`.

    `accuracy` is that of Huang et al.'s protocol for LFW (2007): as many pairs of one person as of two, in ten folds of
    pairs, each judged by the threshold that is best on the other nine. The pairs are not theirs: all of one person,
    up to `pairs`, and random others. `rank1` is the share of pictures, of people with several, whose nearest other
    picture shows the same person. Folds share people, so intervals would be too narrow and none is given.

    `threshold` is the cosine at which the share `far` of all pairs of two people is accepted, and `tar_percent` the
    share of all pairs of one person accepted there. An encoder's `match_threshold` is such a threshold. A data set with
    too few pairs for the rate that is asked for gets the lowest rate with ten false accepts, and `far` says which.
    """

    name = "verification"
    standalone = True
    metrics: ClassVar = {}

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
        far: float = Field(1e-3, gt=0, lt=1, description="False-accept rate of the threshold, over all pairs.")

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
    place = len(unlike) - accepted
    rate = far if accepted == round(far * len(unlike)) else float(f"{accepted / len(unlike):.3g}")
    return float(np.partition(unlike, place)[place]), rate


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
