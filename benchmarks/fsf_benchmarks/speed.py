"""`fsf bench speed`: how fast this code is on this machine, beside a plain reference or beside another commit.

Each implementation lives in a process of its own (`speed_work`), and they take turns task by task, so that a machine
whose speed drifts changes ratios little. Figures are medians over the rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from fsframework.components import Benchmark, ComponentOptions
from fsframework.environment import environment, has_bf16
from fsframework.errors import UserError
from fsframework.progress import Ticker, progress

Task = Literal["step", "swap", "detection", "alignment", "pasting", "data", "start"]
OF_NETWORKS = ("step", "swap")  # tasks that the plain reference does, too
ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("speed_work.py")


class Speed(Benchmark):
    """Pictures a second of training, swapping and everything around them, beside a plain reference.

    Needs no run: `fsf bench speed`. A ratio above 1 means faster than the plain reference (out of the box: contiguous
    memory order, torch's own convolutions, the system's allocator), or with `against` than that commit.
    """

    name = "speed"
    alone = True
    figures = {}  # noqa: RUF012

    class Options(ComponentOptions):
        size: int = Field(64, description="Side of the crops in pixels.")
        width: float = Field(0.5, gt=0, le=2, description="Factor of the numbers of channels; 1 is the paper's.")
        batch: int = Field(24, ge=1, description="Pairs at once.")
        rounds: int = Field(5, ge=1, description="Timed turns, after two that are not.")
        tasks: tuple[Task, ...] = Field(
            ("step", "swap", "detection", "alignment", "pasting", "data", "start"), description="What is timed."
        )
        bf16: bool | None = Field(None, description="Also under bfloat16; null: where the device has it.")
        recompute: bool = Field(False, description="Also with the generator's option `recompute`.")
        compiled: bool = Field(
            False, description="Also with all networks compiled by torch.compile, under bfloat16 where it is."
        )
        recorded: bool = Field(
            False, description="On GPUs, also with a step's work recorded and replayed, under bfloat16 where it is."
        )
        without: tuple[Literal["winograd", "patches", "aad", "instance_norm", "adam", "memory"], ...] = Field(
            (), description="Also ours without one of these: what each of them gains."
        )
        against: str | None = Field(None, description="A commit of this checkout to compare with, as git names it.")

        @model_validator(mode="after")
        def _names_tasks(self) -> Self:
            if not self.tasks:
                raise ValueError("tasks: names none")
            return self

    options: Options

    def measure(self, device: torch.device) -> dict[str, Any]:
        """The table's rows, and what a reader must know of the machine."""
        with ExitStack() as stack:
            workers = self._workers(device, stack)
            quality = self._quality(workers)
            rows = []
            turns = sum(worker.does(task) for task in self.options.tasks for worker in workers.values())
            with progress("speed", turns * (self.options.rounds + 2), "turns") as ticker:
                for task in self.options.tasks:
                    rows += self._rows(task, {name: each for name, each in workers.items() if each.does(task)}, ticker)
            kinds = dict.fromkeys(worker.precision for worker in workers.values())
            peaks = {kind: workers["ours fp32"].ask("peak", kind) for kind in kinds}
            copy = workers["ours fp32"].ask("copy")
        for row in rows:
            if row["task"] in OF_NETWORKS:
                peak = peaks[workers[row["implementation"]].precision]
                row["peak_percent"] = round(100 * row["gflop"] * row["per_s"] * 1e9 / peak, 1)  # of what is computed
            if row["task"] == "swap":
                row |= quality.get(row["implementation"], {})
        return {
            "options": self.options.model_dump(mode="json"),
            "matmul_peak_gflops": {kind: round(value / 1e9) for kind, value in peaks.items()},
            "copy_gb_per_s": round(copy / 1e9, 1),
            **_waiting(rows),
            "rows": rows,
            **environment(device),
        }

    def _workers(self, device: torch.device, stack: ExitStack) -> "dict[str, Worker]":
        """The implementations by name, first the one that ratios refer to."""
        options = self.options
        settings = {key: getattr(options, key) for key in ("size", "width", "batch")}
        settings |= {"device": str(device), "threads": torch.get_num_threads(), "bf16": False, "recompute": False}
        settings |= {"compiled": False, "recorded": False, "without": ""}
        bf16 = has_bf16(device) if options.bf16 is None else options.bf16
        workers: dict[str, Worker] = {}
        if options.against is None:
            workers["plain fp32"] = Worker({**settings, "way": "plain"})
        else:
            code = stack.enter_context(checked_out(options.against))
            workers[f"{options.against} fp32"] = Worker({**settings, "way": "ours"}, code)
        workers["ours fp32"] = Worker({**settings, "way": "ours"})
        if options.recompute:
            workers["ours fp32 recompute"] = Worker({**settings, "way": "ours", "recompute": True})
        if bf16:
            if options.against is None:
                workers["plain bf16"] = Worker({**settings, "way": "plain", "bf16": True})
            workers["ours bf16"] = Worker({**settings, "way": "ours", "bf16": True})
        fastest = "bf16" if bf16 else "fp32"
        if options.recorded:
            workers[f"ours {fastest} recorded"] = Worker({**settings, "way": "ours", "bf16": bf16, "recorded": True})
        if options.compiled:
            workers[f"ours {fastest} compiled"] = Worker({**settings, "way": "ours", "bf16": bf16, "compiled": True})
        for measure in options.without:
            workers[f"ours fp32 without {measure}"] = Worker({**settings, "way": "ours", "without": measure})
        for worker in workers.values():
            stack.callback(worker.stop)
        return workers

    def _rows(self, task: str, workers: "dict[str, Worker]", ticker: Ticker) -> list[dict[str, Any]]:
        """One row for each implementation; they take turns."""
        times: dict[str, list[float]] = {name: [] for name in workers}
        for turn in range(self.options.rounds + 2):
            for name, worker in workers.items():
                seconds, count = worker.ask("seconds", task)
                ticker.advance(note=f"{task}, {name}")
                if turn >= 2:
                    times[name].append(seconds / count)
        base = next(iter(workers))
        rows = []
        for name, worker in workers.items():
            ratios = [one / other for one, other in zip(times[base], times[name], strict=True)]
            row: dict[str, Any] = {"task": task, "implementation": name}
            row["per_s"] = float(f"{1 / statistics.median(times[name]):.4g}")
            row["ratio"] = round(statistics.median(ratios), 2) if len(workers) > 1 else None
            if task in OF_NETWORKS:
                row["gflop"] = round(worker.ask("flops", task) / self.options.batch / 1e9, 3)
                row["peak_memory_gb"] = round(worker.ask("memory") / 1e9, 2)
            rows.append(row)
        return rows

    def _quality(self, workers: "dict[str, Worker]") -> dict[str, dict[str, float | None]]:
        """How far the swaps, before any training step, are from the first implementation's."""
        if "swap" not in self.options.tasks:
            return {}
        for worker in workers.values():
            worker.ask("swap")
        images = {name: np.array(worker.ask("pixels")) for name, worker in workers.items()}  # in [-1, 1]
        base = images.pop(next(iter(images)))
        found: dict[str, dict[str, float | None]] = {}
        for name, image in images.items():
            error = np.square(np.rint(127.5 * image) - np.rint(127.5 * base)).mean()
            psnr = round(10 * np.log10(255**2 / error), 1) if error > 0 else None
            found[name] = {"difference": float(f"{np.abs(image - base).max():.2g}"), "psnr_db": psnr}
        return found


def _waiting(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The share of a training step that waits for data, where both were timed."""
    rates = {row["task"]: row["per_s"] for row in rows if row["implementation"] == "ours fp32"}
    if not {"data", "step"} <= rates.keys():
        return {}
    return {"data_share_percent": round(100 * rates["step"] / (rates["data"] + rates["step"]), 2)}


class Worker:
    """A process of `speed_work`, perhaps with another commit's code."""

    def __init__(self, settings: dict[str, Any], code: Path | None = None) -> None:
        special = any(settings[key] for key in ("bf16", "recompute", "compiled", "recorded", "without"))
        self.only_networks = settings["way"] == "plain" or special
        self.precision = "bf16" if settings["bf16"] else "fp32"
        environment = dict(os.environ)
        if code is not None:
            paths = [code, code / "plugins", code / "benchmarks"]
            environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        # -P: the folder of the file, which is this commit's, is no place to import from.
        command = [sys.executable, "-P", str(WORKER), json.dumps(settings)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def does(self, task: str) -> bool:
        """Whether a task is one of this implementation's own."""
        return task in OF_NETWORKS or not self.only_networks

    def ask(self, *question: Any) -> Any:
        """What a method of `Work` returns. Raises UserError with its last words if the process dies."""
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            said = self.process.stderr.read().strip().splitlines()
            raise UserError(f"speed: {question[-1]}: {said[-1] if said else 'the process died'}") from None

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit of this checkout. Raises UserError if there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "code"
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", str(place), commit], capture_output=True, text=True, check=False
        )
        if added.returncode:
            said = added.stderr.strip().splitlines()
            raise UserError(
                f"--against {commit}: {said[-1] if said else 'git failed'}; name a commit of a git checkout"
            )
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], capture_output=True, check=False)
