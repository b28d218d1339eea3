"""Measure how well `fsf extract` tells people apart: pairwise F1 of its clusters, beside scikit-learn's.

\b
pip install scikit-learn
python benchmarks/scripts/clustering.py LFW/val.zip --weights mobilefacenet.pt --save clustering_lfw_64px

PICTURES is a folder or zip file person/picture. The clusters are judged by pairs of faces: precision is the share of
pairs in one cluster that show one person, recall the share of pairs of one person that are in one cluster. Each row is
an algorithm and an encoder; figures are means over random orders of the faces. `strangers_alone` is the share of faces
that stay alone where every person has one picture, `largest_whole` the recall on the pictures of the person with most.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from fsf_benchmarks.verification import embed

from fsframework.core.components import Dataset
from fsframework.core.errors import UserError
from fsframework.core.part import part
from fsframework.data.extract_assembly import group
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULTS = Path(__file__).parent / "results"
BEFORE = 0.5  # the threshold for all encoders before each had its own
ORDERS = 5  # random orders of the faces

Cluster = Callable[[np.ndarray], Sequence[int]]


def f1(labels: Sequence[int], people: Sequence[int]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of pairs, 1 where there is no pair."""
    both = _pairs(list(zip(labels, people, strict=True)))
    clustered, known = _pairs(labels), _pairs(people)
    precision = both / clustered if clustered else 1.0
    recall = both / known if known else 1.0
    return precision, recall, 2 * both / (clustered + known) if clustered + known else 1.0


def _pairs(labels: Sequence[Any]) -> int:
    return sum(count * (count - 1) // 2 for count in Counter(labels).values())


def average_linkage(z_id: np.ndarray, match_threshold: float) -> list[int]:
    """Return a cluster for each embedding (N, D), by the mean cosine of two clusters."""
    model = import_module("sklearn.cluster").AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - match_threshold
    )
    return [int(label) for label in model.fit_predict(z_id)]


def hdbscan(z_id: np.ndarray) -> list[int]:
    """Return a cluster for each embedding (N, D), by density; a face that belongs to none is a cluster of its own."""
    model = import_module("sklearn.cluster").HDBSCAN(min_cluster_size=2, min_samples=1, metric="cosine", copy=True)
    labels = model.fit_predict(z_id)
    alone = labels < 0
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    return [int(label) for label in labels]


def ways(match_threshold: float) -> dict[str, Cluster]:
    """Return the algorithms by name."""
    return {
        f"extract, {BEFORE:.3f}": lambda z_id: group(z_id, BEFORE),
        f"extract, {match_threshold:.3f}": lambda z_id: group(z_id, match_threshold),
        f"average linkage, {match_threshold:.3f}": lambda z_id: average_linkage(z_id, match_threshold),
        "HDBSCAN": hdbscan,
    }


def measured(cluster: Cluster, z_id: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """Return the figures of an algorithm, means over ORDERS."""
    rows = []
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(len(people))
        shuffled, known = z_id[order], people[order]
        labels = cluster(shuffled)
        precision, recall, both = f1(labels, known.tolist())
        _, first = np.unique(known, return_index=True)
        sizes = Counter(cluster(shuffled[first])).values()
        largest = known == np.bincount(known).argmax()
        _, whole, _ = f1(cluster(shuffled[largest]), [0] * int(largest.sum()))
        alone = sum(size == 1 for size in sizes) / len(first)
        rows.append((precision, recall, both, len(set(labels)), alone, whole))
    keys = ("precision", "recall", "f1", "clusters", "strangers_alone", "largest_whole")
    means = dict(zip(keys, np.mean(rows, axis=0).tolist(), strict=True))
    return {key: round(value, 1) if key == "clusters" else round(100 * value, 1) for key, value in means.items()}


def measure(place: Path, weights: Path | None, size: int) -> list[dict[str, Any]]:
    """Return a row for each encoder and algorithm. Raises UserError if the pictures cannot be read."""
    faces: Dataset = part("datasets", "face-folder", root=place).build(size, part("detectors", "mtcnn"), "all")
    faces.load()
    people = faces.persons()
    judges = [part("identity-encoders", name) for name in ("dlib-resnet", "lfw-recogniser")]
    judges += [part("identity-encoders", "mobilefacenet", weights=weights)] if weights else []
    rows = []
    for judge in judges:
        z_id = embed(judge, faces, torch.device("cpu"))
        for name, cluster in ways(judge.build().required_match_threshold()).items():
            rows.append({"encoder": judge.name, "way": name, **measured(cluster, z_id, people)})
    return rows


@click.command(help=__doc__)
@click.argument("place", metavar="PICTURES", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Of mobilefacenet, measured besides.")
@click.option("--size", default=64, show_default=True, type=click.IntRange(min=16), help="Side of the crops in pixels.")
@click.option("--save", "name", help="Write the figures to benchmarks/results, under this name.")
def main(place: Path, weights: Path | None, size: int, name: str | None) -> None:
    try:
        rows = measure(place, weights, size)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    for row in rows:
        click.echo("  ".join(str(value) for value in row.values()))
    if name:
        note = f"scikit-learn {metadata.version('scikit-learn')}."
        result = {"benchmark": "clustering", "note": note, "rows": rows, **of_script("clustering.py")}
        write_text(RESULTS / f"{name}.json", json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
