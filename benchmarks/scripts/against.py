"""Compare `fsf swap` of pictures and videos, as whole commands, with that of an earlier commit.

    python benchmarks/scripts/against.py OLD/bin/fsf --old-model MODEL --model MODEL --save

OLD is an environment in which the earlier commit is installed. Commands take turns; figures are medians: seconds by the
clock, seconds of the processor, the largest memory, and ratios to the earlier commit. Videos show a moving portrait; at
1920x1080 there are two. `auto` adds `--precision auto` to the present command. All results are marked.
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
from PIL import Image
from synthetic_video import RATE, make_video, scene

from fsframework.data.samples import portrait, somebody
from fsframework.models import store
from fsframework.utils.environment import of_script
from fsframework.utils.files import write_text

RESULT = Path(__file__).parents[1] / "results" / "against.json"
FSF = Path(sys.executable).parent / "fsf"
WAIT = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.run(sys.argv[1:]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(status)
"""


class Used(NamedTuple):
    """Time and memory that a command took."""

    seconds: float
    processor: float  # seconds
    megabytes: float


@click.command(help=__doc__)
@click.argument("old", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--old-model", required=True, help="The earlier command's model.")
@click.option("--model", default=store.DEFAULT, show_default=True, help="The present command's model.")
@click.option("--seconds", default=4, show_default=True, help="Duration of the videos.")
@click.option("--rounds", default=3, show_default=True, help="Runs of each command.")
@click.option("--save", is_flag=True, help="Write the figures to benchmarks/results.")
def main(old: Path, old_model: str, model: str, seconds: int, rounds: int, save: bool) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, target in made(folder, seconds).items():
            commands: dict[str, list[str | Path]] = {
                "earlier": [old, "swap", "--model", old_model],
                "now": [FSF, "swap", "--model", model],
                "now, auto": [FSF, "swap", "--model", model, "--precision", "auto"],
            }
            used: dict[str, list[Used]] = {command: [] for command in commands}
            for turn in range(rounds + 1):
                for command, words in commands.items():
                    out = folder / f"out{target.suffix}"
                    out.unlink(missing_ok=True)
                    once = run([*words, "--face", "all", folder / "source.png", target, out])
                    if turn:  # the first one fills caches, such as OpenVINO's
                        used[command].append(once)
            for command, values in used.items():
                rows.append(row(name, command, values, used["earlier"]))
                click.echo(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
    if save:
        facts = {"model": model, "earlier": shlex.join(["fsf", "swap", "--model", Path(old_model).name])}
        write_text(RESULT, json.dumps({**of_script("against.py"), **facts, "rows": rows}, indent=2) + "\n")


def made(folder: Path, seconds: int) -> dict[str, Path]:
    """Write a source and the targets; return these by name."""
    Image.fromarray(somebody()).save(folder / "source.png")
    Image.fromarray(portrait()).save(folder / "picture.png")
    targets = {"picture": folder / "picture.png"}
    for name, size, two in (("640x480, one face", (640, 480), False), ("1920x1080, two faces", (1920, 1080), True)):
        frames = [cv2.resize(scene(n, two), size, interpolation=cv2.INTER_CUBIC) for n in range(seconds * RATE)]
        targets[name] = make_video(folder / f"{size[0]}.mp4", [np.ascontiguousarray(frame) for frame in frames])
    return targets


def run(command: list[str | Path]) -> Used:
    """Run a command, which must succeed, below a small process: a child's memory counts that of its parent, too."""
    words = [sys.executable, "-c", WAIT, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{shlex.join(words[3:])}: {done.stderr}")
    return Used(*json.loads(done.stdout.splitlines()[-1]))


def row(target: str, command: str, values: list[Used], earlier: list[Used]) -> dict[str, Any]:
    """Return the medians of a command, and their ratios to the earlier one."""
    now, before = (Used(*map(statistics.median, zip(*each, strict=True))) for each in (values, earlier))
    return {
        "target": target,
        "command": command,
        "seconds": round(now.seconds, 2),
        "processor_s": round(now.processor, 2),
        "MB": round(now.megabytes),
        "times_as_fast": round(before.seconds / now.seconds, 2),
        "processor_ratio": round(before.processor / now.processor, 2),
        "memory_ratio": round(now.megabytes / before.megabytes, 2),
    }


if __name__ == "__main__":
    main()
