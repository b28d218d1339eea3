"""500 pictures by one process, by shares and by a Ray cluster: python benchmarks/scripts/many_files.py [--save FILE]

480 pictures of ORL (360, and 120 of them mirrored) in four formats and 20 that cannot be used lie in a folder. They are
swapped and their faces extracted by one process, by two shares side by side, by two workers of a Ray cluster on this
machine, and by two of which one is killed by SIGKILL in mid-work. All of them compute with one thread (OMP_NUM_THREADS
is 1), as workers of Ray do, except for one way that shows what more threads change.

Of each way: the exit status, results, named errors, the number of results when a worker was killed, how often a result
was written again (the register has a line for each that is made; of extraction there is none), files that one process
makes and this way does not, or other than byte for byte, and files a second: from the command to its end, and between
the first result and the last one, without start, putting together and end.
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
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

GOOD, ORIGINALS, KILLED_AT = 480, 360, 100
ONE = {"OMP_NUM_THREADS": "1"}
RAY = ["--engine", "ray", "--workers", "2"]


def good(number: int) -> np.ndarray:
    """A picture of ORL, or its mirror image, (172, 152, 3) uint8."""
    image = folder_swap.good(number % ORIGINALS)
    return image if number < ORIGINALS else image[:, ::-1]


def main() -> None:
    """Do it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, help="Write the figures to this JSON file, too.")
    save = parser.parse_args().save
    with tempfile.TemporaryDirectory() as place:
        rows = list(measure(Path(place)))
    if save is not None:
        write_text(save, json.dumps({**of_script("many_files.py"), "rows": rows}, indent=2) + "\n")


def measure(place: Path) -> Iterator[dict[str, Any]]:
    """The rows, printed, too."""
    folder_swap.fill(place / "in", map(good, range(GOOD)))
    Image.fromarray(folder_swap.good(200)).save(place / "source.png")
    commands = {
        "swap": ["swap", str(place / "source.png"), str(place / "in"), "OUT", "--no-provenance"],
        "extract": ["extract", str(place / "in"), "-o", "OUT", "--smallest", "30"],
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
            out = place / f"{job}-{number}"
            asked = [[*(str(out) if word == "OUT" else word for word in command), *each] for each in options]
            row = {"job": job, "way": way, **done(asked, out, environment, kills)}
            row |= differences(place / f"{job}-0", out)
            print(json.dumps(row), flush=True)
            yield row


def done(commands: list[list[str]], out: Path, environment: dict[str, str], kills: bool) -> dict[str, Any]:
    """Run commands side by side, and say how it went."""
    data = out.with_suffix(".data")  # with a register of its own
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
        counts.append(made_so_far(out))
        if kills and killed_at is None and counts[-1] >= KILLED_AT:
            os.kill(workers_of(processes[0].pid)[0], signal.SIGKILL)
            killed_at = counts[-1]
    said = "".join(process.communicate()[1] for process in processes)
    seconds = time.perf_counter() - started
    first, last = next(place for place, count in enumerate(counts) if count), int(np.argmax(counts))
    named = {name for name, _ in bad() if any(f"{name}: " in line for line in said.splitlines())}
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
    """Whether it is a picture that was made."""
    hidden = any(part.startswith(".") for part in file.relative_to(out).parts)
    return file.is_file() and not hidden and file.suffix != ".csv"


def made_so_far(out: Path) -> int:
    """Files that are done: results of swaps, records of extraction."""
    records = out.parent / f".{out.name}.parts"
    return sum(1 for _ in records.glob("*/[!.]*/record.npz")) or sum(is_result(file, out) for file in out.glob("*.*"))


def workers_of(driver: int) -> list[int]:
    """The processes of Ray's actors that descend from a process, those that do the work."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # it has ended

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
    """How many files of two folders, hidden ones too, are not the same, and how far pixels are apart at most."""
    files = {file.relative_to(folder) for folder in (one, other) for file in folder.rglob("*") if file.is_file()}
    unequal = [file for file in files if content(one / file) != content(other / file)]
    pictures = [file for file in unequal if is_result(one / file, one) and (other / file).is_file()]
    apart = [np.abs(read_image(one / file).astype(int) - read_image(other / file)).max() for file in pictures]
    return {"files_that_differ": len(unequal), "pixels_apart": int(max(apart, default=0))}


def content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


if __name__ == "__main__":
    main()
