"""Report the state of a run from its folder, during training or afterwards: `fsf status RUN`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from fsframework.models.run import Run
from fsframework.recipe.schema import Stage
from fsframework.utils.progress import in_words

RECENT = 10  # lines of the log for the rate


@dataclass(frozen=True)
class StageStatus:
    """State of one stage."""

    name: str
    steps: int  # in total
    done: int  # completed steps, from the log
    finished: bool
    images_per_s: float | None  # median of the last lines of the log
    seconds_left: float | None  # at that rate; None if the stage is finished or the rate is unknown
    checkpoint: int | None  # step from which --resume continues; None if there is no state, or none is needed
    losses: dict[str, float]  # of the last line

    @property
    def word(self) -> str:
        """Return "finished", "begun" or "waiting"."""
        return "finished" if self.finished else "begun" if self.done or self.checkpoint else "waiting"


@dataclass(frozen=True)
class Status:
    """State of a run."""

    name: str
    folder: Path
    seconds_ago: float | None  # since the last line of the log; None if there is none
    stages: list[StageStatus]

    def __rich__(self) -> Table:
        """Return a table for the terminal."""
        return table(self)


def run_status(folder: str | Path) -> Status:
    """Return the state of a run; nothing is written.

    Raises UserError if the folder contains no run.
    """
    folder = Path(folder)
    run = Run.load(folder, "cpu")
    entries = run.read_log()
    file = run.path / "log.jsonl"
    ago = max(0.0, time.time() - file.stat().st_mtime) if entries else None
    stages = [_of_stage(run, stage, [e for e in entries if e["stage"] == stage.name]) for stage in run.recipe.stages]
    return Status(run.recipe.name, run.path, ago, stages)


def _of_stage(run: Run, stage: Stage, entries: Sequence[dict[str, Any]]) -> StageStatus:
    """Return the state of a stage from its log entries."""
    finished, states = run.finished(stage), run.states(stage)
    done = entries[-1]["step"] if entries else 0
    rate = median(entry["images_per_s"] for entry in entries[-RECENT:]) if entries else None
    seconds_left = None
    if rate and not finished:
        seconds_left = (stage.steps - done) * stage.batch_size * stage.accumulate / rate
    return StageStatus(
        name=stage.name,
        steps=stage.steps,
        done=done,
        finished=finished,
        images_per_s=rate,
        seconds_left=seconds_left,
        checkpoint=int(states[-1].stem.rpartition("-")[2]) if states and not finished else None,
        losses=entries[-1]["losses"] if entries else {},
    )


def table(progress: Status) -> Table:
    """Return the state of a run as a table for the terminal."""
    ago = (
        "no step yet" if progress.seconds_ago is None else f"last line of the log {in_words(progress.seconds_ago)} ago"
    )
    output = Table(title=f"{progress.name} in {progress.folder}: {ago}", title_justify="left")
    for heading in ("stage", "", "steps", "images/s", "left", "checkpoint", "losses"):
        output.add_column(heading, overflow="fold")
    for stage in progress.stages:
        output.add_row(
            stage.name,
            stage.word,
            f"{stage.steps if stage.finished else stage.done} of {stage.steps}",
            "" if stage.images_per_s is None else f"{stage.images_per_s:.3g}",
            "" if stage.seconds_left is None else in_words(stage.seconds_left),
            "" if stage.checkpoint is None else str(stage.checkpoint),
            ", ".join(f"{name} {value:.3g}" for name, value in stage.losses.items()),
        )
    return output
