"""`fsf bench speed`: throughput on this machine, relative to a plain reference or to another commit.

Each implementation runs in a separate process (`speed_work`). On CPUs, implementations alternate task by task, so that
drift of the machine's speed affects all of them; on GPUs they run one after the other. Figures are medians over rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from fsframework.core.components import Benchmark, ComponentOptions
from fsframework.core.errors import UserError
from fsframework.ops.precision import has_bf16
from fsframework.utils.environment import environment
from fsframework.utils.progress import Ticker, progress

Task = Literal["step", "swap", "detection", "alignment", "pasting", "data", "start"]
OURS = "ours fp32"
OF_NETWORKS = ("step", "swap")  # tasks that the plain reference implements
ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("speed_work.py")


class Speed(Benchmark):
    """Measure the throughput of training, swapping, detection, alignment, pasting, data and start, in images/s.

    Needs no run: `fsf bench speed`. A ratio above 1 is faster than the plain reference, or with `against` than that
    commit. The plain reference has contiguous memory format and torch's convolutions. Both retain freed memory, without
    which the reference is up to twice as slow.
    """

    name = "speed"
    standalone = True
    metrics = {}  # noqa: RUF012

    class Options(ComponentOptions):
        size: int = Field(64, description="Side of the crops in pixels.")
        width: float = Field(0.5, gt=0, le=2, description="Factor of the numbers of channels; 1 is the paper's.")
        batch: int = Field(24, ge=1, description="Pairs per batch.")
        rounds: int = Field(5, ge=1, description="Timed rounds, after two rounds of warm-up.")
        turns: bool | None = Field(
            None,
            description="Whether implementations alternate, so that drift of the machine affects all of them, or run "
            "one after the other; null: alternate on CPUs, not on GPUs, for lack of memory.",
        )
        tasks: tuple[Task, ...] = Field(
            ("step", "swap", "detection", "alignment", "pasting", "data", "start"), description="Tasks to time."
        )
        bf16: bool | None = Field(None, description="Also under bfloat16; null: if the device supports it.")
        activation_checkpointing: bool = Field(
            False, description="Also with the generator's option `activation_checkpointing`."
        )
        optimizer_in_backward: bool = Field(
            False,
            description="Also with a stage's option `optimizer_in_backward`, under bfloat16 if measured; with "
            "`activation_checkpointing`, also with both.",
        )
        compiled: bool = Field(
            False, description="Also with all networks compiled by torch.compile, under bfloat16 if measured."
        )
        cuda_graph: bool = Field(
            False, description="On GPUs, also with a step as CUDA graph, under bfloat16 if measured."
        )
        without: tuple[Literal["winograd", "aad", "instance_norm", "triton", "adam", "memory"], ...] = Field(
            (), description="Also without one of these optimisations each, to measure its gain."
        )
        against: str | None = Field(None, description="Commit of this checkout to compare with, as git names it.")

        @model_validator(mode="after")
        def _names_tasks(self) -> Self:
            if not self.tasks:
                raise ValueError("tasks: names none")
            return self

    options: Options

    def measure(self, device: torch.device) -> dict[str, Any]:
        """Return the table's rows, and facts about the machine."""
        with ExitStack() as stack:
            implementations = self._implementations(device, stack)
            turns = sum(len(each.does(self.options.tasks)) for each in implementations.values())
            with progress("speed", turns * (self.options.rounds + 2), "turns") as ticker:
                in_turn = device.type != "cuda" if self.options.turns is None else self.options.turns
                kinds = dict.fromkeys(each.precision for each in implementations.values())
                for names in [list(implementations)] if in_turn else [[name] for name in implementations]:
                    self._time({name: implementations[name] for name in names}, kinds, ticker)
        first = next(iter(implementations.values()))
        peaks, copy = implementations[OURS].peaks, implementations[OURS].copy
        rows = []
        for task in self.options.tasks:
            named = {name: each for name, each in implementations.items() if task in each.times}
            for name, each in named.items():
                base = next(iter(named.values()))
                row = {"task": task, "implementation": name, **self._row(task, each, base)}
                if len(named) == 1:
                    row["ratio"] = None
                if task in OF_NETWORKS:
                    peak = peaks[each.precision] / 1e9
                    row["peak_percent"] = round(
                        100 * row["gflop"] * row["per_s"] / peak, 1
                    )  # of the operations performed
                    if self.options.against is None:
                        by_equations = self._gflop(task, base)  # without recomputation or savings by algorithms
                        row["mfu_percent"] = round(100 * by_equations * row["per_s"] / peak, 1)
                if task == "swap" and each is not first:
                    row |= _quality(each.pixels, first.pixels)
                rows.append(row)
        return {
            "options": self.options.model_dump(mode="json"),
            "matmul_peak_gflops": {kind: round(value / 1e9) for kind, value in peaks.items()},
            "copy_gb_per_s": round(copy / 1e9, 1),
            **_waiting(rows),
            "rows": rows,
            **environment(device),
        }

    def _implementations(self, device: torch.device, stack: ExitStack) -> "dict[str, Implementation]":
        """Return the implementations by name, the reference of ratios first."""
        options = self.options
        settings = {key: getattr(options, key) for key in ("size", "width", "batch")}
        settings |= {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "bf16": False,
            "activation_checkpointing": False,
        }
        settings |= {"optimizer_in_backward": False, "compiled": False, "cuda_graph": False, "without": ""}
        bf16 = has_bf16(device) if options.bf16 is None else options.bf16
        implementations: dict[str, Implementation] = {}
        if options.against is None:
            implementations["plain fp32"] = Implementation({**settings, "way": "plain"})
        else:
            code = stack.enter_context(checked_out(options.against))
            implementations[f"{options.against} fp32"] = Implementation({**settings, "way": "ours"}, code)
        ours = {**settings, "way": "ours"}
        implementations[OURS] = Implementation(ours)
        if options.activation_checkpointing:
            implementations[f"{OURS} activation_checkpointing"] = Implementation(
                {**ours, "activation_checkpointing": True}
            )
        if bf16:
            if options.against is None:
                implementations["plain bf16"] = Implementation({**settings, "way": "plain", "bf16": True})
            implementations["ours bf16"] = Implementation({**ours, "bf16": True})
        fastest = "ours bf16" if bf16 else OURS
        if options.optimizer_in_backward:
            freeing = {**ours, "bf16": bf16, "optimizer_in_backward": True}
            implementations[f"{fastest} optimizer_in_backward"] = Implementation(freeing)
            if options.activation_checkpointing:
                implementations[f"{fastest} optimizer_in_backward activation_checkpointing"] = Implementation(
                    {**freeing, "activation_checkpointing": True}
                )
        if options.cuda_graph:
            implementations[f"{fastest} cuda_graph"] = Implementation({**ours, "bf16": bf16, "cuda_graph": True})
        if options.compiled:
            implementations[f"{fastest} compiled"] = Implementation({**ours, "bf16": bf16, "compiled": True})
        for measure in options.without:
            implementations[f"{OURS} without {measure}"] = Implementation({**ours, "without": measure})
        return implementations

    def _time(self, implementations: "dict[str, Implementation]", kinds: Iterable[str], ticker: Ticker) -> None:
        """Time all tasks of some implementations, alternating, and measure the peaks of some precisions."""
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(each)) for name, each in implementations.items()}
            if "swap" in self.options.tasks:  # before any training step
                for name, worker in workers.items():
                    worker.ask("swap")
                    implementations[name].pixels = np.array(worker.ask("pixels"))  # in [-1, 1]
            for task in self.options.tasks:
                busy = {name: each for name, each in implementations.items() if each.does([task])}
                for turn in range(self.options.rounds + 2):
                    for name, each in busy.items():
                        seconds, count = workers[name].ask("seconds", task)
                        ticker.advance(note=f"{task}, {name}")
                        if turn >= 2:
                            each.times.setdefault(task, []).append(seconds / count)
                if task in OF_NETWORKS:
                    for name, each in busy.items():
                        each.memory[task] = workers[name].ask("memory")  # before operations are counted
                        each.flops[task] = workers[name].ask("flops", task)
            if OURS in workers:
                implementations[OURS].peaks = {kind: workers[OURS].ask("peak", kind) for kind in ("fp32", "bf16")}
                implementations[OURS].copy = workers[OURS].ask("copy")

    def _row(self, task: str, one: "Implementation", base: "Implementation") -> dict[str, Any]:
        """Return the figures of a task of an implementation, relative to the reference of ratios."""
        ratios = [slow / fast for slow, fast in zip(base.times[task], one.times[task], strict=True)]
        per_s = float(f"{1 / statistics.median(one.times[task]):.4g}")
        row: dict[str, Any] = {"per_s": per_s, "ratio": round(statistics.median(ratios), 2)}
        if task in OF_NETWORKS:
            row["gflop"] = self._gflop(task, one)
            row["peak_memory_gb"] = round(one.memory[task] / 1e9, 2)
        return row

    def _gflop(self, task: str, one: "Implementation") -> float:
        """Return the GFLOP per image."""
        return round(one.flops[task] / self.options.batch / 1e9, 3)


def _quality(image: np.ndarray, base: np.ndarray) -> dict[str, float | None]:
    """Return the differences of swaps to those of the first implementation."""
    error = np.square(np.rint(127.5 * image) - np.rint(127.5 * base)).mean()
    psnr = round(10 * np.log10(255**2 / error), 1) if error > 0 else None
    return {"difference": float(f"{np.abs(image - base).max():.2g}"), "psnr_db": psnr}


def _waiting(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the percentage of a training step that waits for data, if both were timed."""
    rates = {row["task"]: row["per_s"] for row in rows if row["implementation"] == OURS}
    if not {"data", "step"} <= rates.keys():
        return {}
    return {"data_share_percent": round(100 * rates["step"] / (rates["data"] + rates["step"]), 2)}


class Implementation:
    """Implementation of the tasks, with its measurements.

    Parameters
    ----------
    settings:
        Arguments of `speed_work.Work`.
    code:
        Folder with another commit's files; None for this one's.
    """

    def __init__(self, settings: dict[str, Any], code: Path | None = None) -> None:
        self.settings, self.code = settings, code
        self.precision = "bf16" if settings["bf16"] else "fp32"
        self.times: dict[str, list[float]] = {}  # seconds per image, of each round
        self.flops: dict[str, int] = {}
        self.memory: dict[str, int] = {}  # peak so far, in bytes
        self.pixels = np.zeros(0)  # of swaps
        self.peaks: dict[str, float] = {}  # FLOP/s of a matrix product
        self.copy = 0.0  # bytes/s

    def does(self, tasks: Iterable[str]) -> list[str]:
        """Return those of `tasks` to time: variants are timed for tasks of networks only."""
        special = any(
            self.settings[key]
            for key in (
                "bf16",
                "activation_checkpointing",
                "optimizer_in_backward",
                "compiled",
                "cuda_graph",
                "without",
            )
        )
        only_networks = self.settings["way"] == "plain" or special
        return [task for task in tasks if task in OF_NETWORKS or not only_networks]


class Worker:
    """Process of `speed_work` for an implementation."""

    def __init__(self, implementation: Implementation) -> None:
        settings, code = implementation.settings, implementation.code
        environment = dict(os.environ)
        if code is not None:
            paths = [code, code / "plugins", code / "benchmarks"]
            environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        # -P: do not import from the file's folder, which belongs to this commit.
        command = [sys.executable, "-P", str(WORKER), json.dumps(settings)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def ask(self, *question: Any) -> Any:
        """Return the result of a method of `Work`. Raises UserError with its last output if the process dies."""
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            errors = self.process.stderr.read().strip().splitlines()
            raise UserError(f"speed: {question[-1]}: {errors[-1] if errors else 'the process died'}") from None

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Yield a folder with the files of a commit of this checkout. Raises UserError if there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code"
        git = ["git", "-C", str(ROOT), "worktree"]
        process = subprocess.run(
            [*git, "add", "--detach", str(path), commit], capture_output=True, text=True, check=False
        )
        if process.returncode:
            errors = process.stderr.strip().splitlines()
            raise UserError(
                f"--against {commit}: {errors[-1] if errors else 'git failed'}; name a commit of a git checkout"
            )
        try:
            if not (path / "fsframework" / "ops").is_dir():
                raise UserError(f"--against {commit}: has no package fsframework.ops; name a commit that has one")
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], capture_output=True, check=False)
