"""Measure the reading speed of crops from shards.

    python benchmarks/scripts/shard_reading.py [--save FILE]

ORL's 400 aligned faces are written to shards as PNG, lossless WebP and JPEG (quality 95). One process reads them in
random order, alternating with the cache of decoded crops. Figures: crops/s, and kilobytes per crop.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from fsf_data.face_folder import FaceFolder
from PIL import Image
from rich.console import Console
from rich.table import Table

from fsframework.core.components import Dataset
from fsframework.core.part import part
from fsframework.data.webdataset import write_shards
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

SIZES = (128, 256)
KINDS: dict[str, dict[str, Any]] = {
    "png": {},
    "webp": {"lossless": True, "method": 1, "quality": 20},
    "jpg": {"quality": 95, "subsampling": 0},
}
READS, ROUNDS = 1000, 5


def orl(size: int) -> Dataset:
    """Return ORL's aligned faces from the cache."""
    data: Dataset = part("datasets", "orl").build(size, part("detectors", "mtcnn"), "all")
    data.load()
    return data


def sharded(data: Dataset, folder: Path, kind: str) -> FaceFolder:
    """Return the same faces from shards."""
    crops = []
    for index in range(len(data)):
        sample = data[index]
        file = folder / f"{index}.{kind}"
        Image.fromarray(sample.image).save(file, **KINDS[kind])
        crops.append((f"{sample.name}.{kind}", file))
    shards = folder / f"shards-{kind}"
    shards.mkdir()
    write_shards(shards, crops, 100)
    options = FaceFolder.Options(root=shards, layout="aligned", cache=folder)
    dataset = FaceFolder(options, data[0].image.shape[0], None, "all")
    dataset.load()
    return dataset


def rate(data: Dataset) -> float:
    """Return the crops/s in random order."""
    indices = np.random.default_rng(0).integers(len(data), size=READS).tolist()
    started = time.perf_counter()
    for index in indices:
        data[index]
    return READS / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, and save with --save."""
    parser = argparse.ArgumentParser(description="How fast crops come out of shards.")
    parser.add_argument("--save", type=Path, help="A file for the figures, as JSON.")
    options = parser.parse_args()
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            cache = orl(size)
            ways: dict[str, Dataset] = {"cache": cache} | {kind: sharded(cache, Path(folder), kind) for kind in KINDS}
            rates = [{way: rate(data) for way, data in ways.items()} for _ in range(ROUNDS)]
            for way in ways:
                files = list(Path(folder).glob(f"*.{way}"))
                kilobytes = (
                    sum(file.stat().st_size for file in files) / len(files) / 1e3 if files else 3 * size**2 / 1e3
                )
                crops = round(median(each[way] for each in rates))
                rows.append({"size": size, "from": way, "crops_per_s": crops, "kb": round(kilobytes, 1)})
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if options.save is not None:
        write_text(options.save, json.dumps(of_script("shard_reading.py") | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
