r"""Measure the pairwise F1 of clusters of `fsf extract`, compared with scikit-learn's.

\b
pip install scikit-learn
python benchmarks/scripts/clustering.py LFW/val.zip --weights mobilefacenet.pt --save clustering_lfw_64px

PICTURES is a folder or zip file person/picture. Clusters are evaluated by pairs of faces: precision is the fraction of
pairs in one cluster that show one person, recall the fraction of pairs of one person that are in one cluster. Each row
is an algorithm and an encoder; figures are means over random orders of the faces. `strangers_alone` is the fraction of
singleton clusters with one picture per person, `largest_whole` the recall on the person with most pictures.
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

RESULTS = Path(__file__).parents[1] / "results"
BEFORE = 0.5  # former common threshold of all encoders
ORDERS = 5  # random orders of the faces

Cluster = Callable[[np.ndarray], Sequence[int]]


def f1(labels: Sequence[int], people: Sequence[int]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of pairs, 1 where there is no pair."""
    matching = _pairs(list(zip(labels, people, strict=True)))
    clustered, of_people = _pairs(labels), _pairs(people)
    precision = matching / clustered if clustered else 1.0
    recall = matching / of_people if of_people else 1.0
    return precision, recall, 2 * matching / (clustered + of_people) if clustered + of_people else 1.0


def _pairs(labels: Sequence[Any]) -> int:
    return sum(count * (count - 1) // 2 for count in Counter(labels).values())


def average_linkage(z_id: np.ndarray, match_threshold: float) -> list[int]:
    """Return a cluster for each embedding (N, D), by the mean cosine of two clusters."""
    model = import_module("sklearn.cluster").AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - match_threshold
    )
    return [int(label) for label in model.fit_predict(z_id)]


def hdbscan(z_id: np.ndarray) -> list[int]:
    """Return a cluster for each embedding (N, D), by density; faces without a cluster are singletons."""
    model = import_module("sklearn.cluster").HDBSCAN(min_cluster_size=2, min_samples=1, metric="cosine", copy=True)
    labels = model.fit_predict(z_id)
    alone = labels < 0
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    return [int(label) for label in labels]


def algorithms(match_threshold: float) -> dict[str, Cluster]:
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
        shuffled, labels_true = z_id[order], people[order]
        labels = cluster(shuffled)
        precision, recall, f1_score = f1(labels, labels_true.tolist())
        _, first = np.unique(labels_true, return_index=True)
        sizes = Counter(cluster(shuffled[first])).values()
        largest = labels_true == np.bincount(labels_true).argmax()
        _, whole, _ = f1(cluster(shuffled[largest]), [0] * int(largest.sum()))
        singletons = sum(size == 1 for size in sizes) / len(first)
        rows.append((precision, recall, f1_score, len(set(labels)), singletons, whole))
    keys = ("precision", "recall", "f1", "clusters", "strangers_alone", "largest_whole")
    means = dict(zip(keys, np.mean(rows, axis=0).tolist(), strict=True))
    return {key: round(value, 1) if key == "clusters" else round(100 * value, 1) for key, value in means.items()}


def measure(path: Path, weights: Path | None, size: int) -> list[dict[str, Any]]:
    """Return a row for each encoder and algorithm. Raises UserError if the pictures cannot be read."""
    faces: Dataset = part("datasets", "face-folder", root=path).build(size, part("detectors", "mtcnn"), "all")
    faces.load()
    people = faces.persons()
    judges = [part("identity-encoders", name) for name in ("dlib-resnet", "lfw-recogniser")]
    judges += [part("identity-encoders", "mobilefacenet", weights=weights)] if weights else []
    rows = []
    for judge in judges:
        z_id = embed(judge, faces, torch.device("cpu"))
        for name, cluster in algorithms(judge.build().required_match_threshold()).items():
            rows.append({"encoder": judge.name, "way": name, **measured(cluster, z_id, people)})
    return rows


@click.command(help=(__doc__ or "").replace(r"\b", "\b"))
@click.argument("path", metavar="PICTURES", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--weights", type=click.Path(exists=True, path_type=Path), help="Weights of mobilefacenet, to measure it too."
)
@click.option("--size", default=64, show_default=True, type=click.IntRange(min=16), help="Side of the crops in pixels.")
@click.option("--save", "name", help="Write the figures to benchmarks/results, under this name.")
def main(path: Path, weights: Path | None, size: int, name: str | None) -> None:
    try:
        rows = measure(path, weights, size)
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
