"""Measure the start-up time of `fsf` relative to the imports of torch and timm.

    python benchmarks/scripts/start_up.py [ROUNDS]

The commands alternate, after a first round that warms the disk cache; medians are printed.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "fsf --help": [sys.executable, "-m", "fsframework", "--help"],
    "fsf plugins list": [sys.executable, "-m", "fsframework", "plugins", "list"],
    "import torch, timm": [sys.executable, "-c", "import torch, timm"],
}


def seconds(command: list[str]) -> float:
    """Return the duration of one run, which must succeed, in seconds."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            duration = seconds(command)
            if turn:
                times[name].append(duration)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:<20} {value:6.2f} s")
    print(f"fsf plugins list is {medians['fsf plugins list'] / medians['import torch, timm']:.2f} times the imports")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
