"""Compare swap and extraction of 500 files by one process, by two shards and by a Ray cluster.

    python benchmarks/scripts/many_files.py [--save FILE]

The folder has 480 pictures of ORL (360, and 120 of them mirrored) in four formats and 20 unusable files. They are
processed by one process, by two shards in parallel, by two workers of a local Ray cluster, and by two workers of which
one is killed by SIGKILL. All use one thread (OMP_NUM_THREADS=1), as Ray's workers do, except for one row with two.

Figures of each row: the exit status, numbers of results and named errors, and the number of results at the kill.
`written_again` counts results that were written twice, by the ledger, which extraction does not have.
`files_that_differ` counts files that differ from those of one process. Files/s are given for the whole command, and
between the first and the last result, without start, merge and end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_swap
import numpy as np
from folder_swap import BAD, bad
from PIL import Image

from fsframework.media.image_io import read_image
from fsframework.models import store
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

GOOD, ORIGINALS, KILLED_AT = 480, 360, 100
ONE = {"OMP_NUM_THREADS": "1"}
RAY = ["--engine", "ray", "--workers", "2"]


def good(number: int) -> np.ndarray:
    """Return a picture of ORL, or its mirror image, (172, 152, 3) uint8."""
    image = folder_swap.good(number % ORIGINALS)
    return image if number < ORIGINALS else image[:, ::-1]


def main() -> None:
    """Run the measurement and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=store.DEFAULT, help="Model, as for fsf swap.")
    parser.add_argument("--save", type=Path, help="Also write the figures to this JSON file.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder), options.model))
    if options.save is not None:
        result = {**of_script("many_files.py"), "model": options.model, "rows": rows}
        write_text(options.save, json.dumps(result, indent=2) + "\n")


def measure(folder: Path, model: str) -> Iterator[dict[str, Any]]:
    """Yield and print the rows."""
    folder_swap.fill(folder / "in", map(good, range(GOOD)))
    Image.fromarray(folder_swap.good(200)).save(folder / "source.png")
    commands = {
        "swap": ["swap", str(folder / "source.png"), str(folder / "in"), "OUT", "--no-provenance", "--model", model],
        "extract": ["extract", str(folder / "in"), "-o", "OUT", "--smallest", "30"],
    }
    ways: dict[str, tuple[list[list[str]], dict[str, str], bool]] = {
        "one process": ([[]], ONE, False),
        "two shares": ([["--shard", "1/2"], ["--shard", "2/2"]], ONE, False),
        "two workers": ([RAY], ONE, False),
        "two workers, one killed": ([RAY], ONE, True),
        "one process, two threads": ([[]], {"OMP_NUM_THREADS": "2"}, False),
    }
    for job, command in commands.items():
        for number, (way, (options, environment, kills)) in enumerate(ways.items()):
            out = folder / f"{job}-{number}"
            asked = [[*(str(out) if word == "OUT" else word for word in command), *each] for each in options]
            row = {"job": job, "way": way, **run_commands(asked, out, environment, kills)}
            row |= differences(folder / f"{job}-0", out)
            print(json.dumps(row), flush=True)
            yield row


def run_commands(commands: list[list[str]], out: Path, environment: dict[str, str], kills: bool) -> dict[str, Any]:
    """Run commands in parallel, and return the figures."""
    data = out.with_suffix(".data")  # with a separate ledger
    settings = {**os.environ, **environment, "XDG_DATA_HOME": str(data)}
    settings.pop("RAY_ADDRESS", None)
    started = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "fsframework", *command, "--device", "cpu"],
            env=settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    times, counts, killed_at = [0.0], [0], None
    while any(process.poll() is None for process in processes):
        time.sleep(0.25)
        times.append(time.perf_counter() - started)
        counts.append(finished_files(out))
        if kills and killed_at is None and counts[-1] >= KILLED_AT:
            os.kill(workers_of(processes[0].pid)[0], signal.SIGKILL)
            killed_at = counts[-1]
    errors = "".join(process.communicate()[1] for process in processes)
    seconds = time.perf_counter() - started
    first, last = next(index for index, count in enumerate(counts) if count), int(np.argmax(counts))
    named = {name for name, _ in bad() if any(f"{name}: " in line for line in errors.splitlines())}
    return {
        "status": max(process.returncode for process in processes),
        "results": len([file for file in out.rglob("*") if is_result(file, out)]),
        "named_errors": len(named),
        "killed_at": killed_at,
        "written_again": written_again(data),
        "seconds": round(seconds, 1),
        "per_s": round((GOOD + BAD) / seconds, 1),
        "per_s_at_work": round((counts[last] - counts[first]) / (times[last] - times[first]), 1),
    }


def is_result(file: Path, out: Path) -> bool:
    """Return whether a file in `out` is a resulting picture."""
    hidden = any(part.startswith(".") for part in file.relative_to(out).parts)
    return file.is_file() and not hidden and file.suffix != ".csv"


def finished_files(out: Path) -> int:
    """Return the number of finished files: results of swaps, or records of extraction."""
    records = out.parent / f".{out.name}.parts"
    return sum(1 for _ in records.glob("*/[!.]*/record.npz")) or sum(is_result(file, out) for file in out.glob("*.*"))


def workers_of(driver: int) -> list[int]:
    """Return the process numbers of Ray's worker actors that descend from a process."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # the process has ended

    def descends(process: int) -> bool:
        return process == driver or (process in parents and descends(parents[process]))

    return [process for process, name in names.items() if name.startswith("ray::MapWorker") and descends(process)]


def written_again(data: Path) -> int | None:
    """Lines of the register beyond one for each result; None if there is none."""
    register = data / "fsframework" / "ledger.jsonl"
    if not register.is_file():
        return None
    lines = [json.loads(line) for line in register.read_text().splitlines() if line]
    return sum(count - 1 for count in Counter(line["file"] for line in lines).values())


def differences(one: Path, other: Path) -> dict[str, Any]:
    """Return the number of files, with hidden ones, that differ in two folders, and the maximum pixel difference."""
    files = {file.relative_to(folder) for folder in (one, other) for file in folder.rglob("*") if file.is_file()}
    unequal = [file for file in files if content(one / file) != content(other / file)]
    pictures = [file for file in unequal if is_result(one / file, one) and (other / file).is_file()]
    pixel_differences = [
        np.abs(read_image(one / file).astype(int) - read_image(other / file)).max() for file in pictures
    ]
    return {"files_that_differ": len(unequal), "pixels_apart": int(max(pixel_differences, default=0))}


def content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


if __name__ == "__main__":
    main()
