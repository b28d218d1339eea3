"""Where a run stands, read from its folder while it trains or afterwards: `fsf status RUN`."""

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

RECENT = 10  # lines of the log from which the rate is told


@dataclass(frozen=True)
class StageStatus:
    """What is known of one stage."""

    name: str
    steps: int  # in all
    done: int  # as the log has them
    finished: bool
    images_per_s: float | None  # of the last lines of the log
    seconds_left: float | None  # at that rate; None where nothing is left or nothing is known
    checkpoint: int | None  # the step from which --resume goes on; None where there is no state, or none is needed
    losses: dict[str, float]  # of the last line

    @property
    def word(self) -> str:
        """finished, begun or waiting."""
        return "finished" if self.finished else "begun" if self.done or self.checkpoint else "waiting"


@dataclass(frozen=True)
class Status:
    """What is known of a run."""

    name: str
    folder: Path
    seconds_ago: float | None  # since the last line of the log; None if there is none
    stages: list[StageStatus]


def status(folder: Path) -> Status:
    """Where a run stands. Nothing is written. Raises UserError if the folder holds no run."""
    run = Run.load(folder, "cpu")
    entries = run.read_log()
    file = run.path / "log.jsonl"
    ago = max(0.0, time.time() - file.stat().st_mtime) if entries else None
    stages = [_of_stage(run, stage, [e for e in entries if e["stage"] == stage.name]) for stage in run.recipe.stages]
    return Status(run.recipe.name, run.path, ago, stages)


def _of_stage(run: Run, stage: Stage, entries: Sequence[dict[str, Any]]) -> StageStatus:
    finished, states = run.finished(stage), run.states(stage)
    done = entries[-1]["step"] if entries else 0
    rate = median(entry["images_per_s"] for entry in entries[-RECENT:]) if entries else None
    left = None
    if rate and not finished:
        left = (stage.steps - done) * stage.batch_size * stage.accumulate / rate
    return StageStatus(
        name=stage.name,
        steps=stage.steps,
        done=done,
        finished=finished,
        images_per_s=rate,
        seconds_left=left,
        checkpoint=int(states[-1].stem.rpartition("-")[2]) if states and not finished else None,
        losses=entries[-1]["losses"] if entries else {},
    )


def table(found: Status) -> Table:
    """For the terminal."""
    ago = "no step yet" if found.seconds_ago is None else f"last line of the log {in_words(found.seconds_ago)} ago"
    shown = Table(title=f"{found.name} in {found.folder}: {ago}", title_justify="left")
    for heading in ("stage", "", "steps", "images/s", "left", "checkpoint", "losses"):
        shown.add_column(heading, overflow="fold")
    for stage in found.stages:
        shown.add_row(
            stage.name,
            stage.word,
            f"{stage.steps if stage.finished else stage.done} of {stage.steps}",
            "" if stage.images_per_s is None else f"{stage.images_per_s:.3g}",
            "" if stage.seconds_left is None else in_words(stage.seconds_left),
            "" if stage.checkpoint is None else str(stage.checkpoint),
            ", ".join(f"{name} {value:.3g}" for name, value in stage.losses.items()),
        )
    return shown
