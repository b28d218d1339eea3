"""Summarise the training of a run: loss curves and speed of every stage."""

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fsframework.models.run import Run
from fsframework.recipe.schema import Stage
from fsframework.report.curves import curve
from fsframework.report.html import number
from fsframework.utils.progress import in_words

Points = list[tuple[float, float]]  # step and value


@dataclass(frozen=True)
class Progress:
    """The progress of one stage, from the log."""

    stage: Stage
    finished: bool
    done: int  # steps
    seconds: float  # of those steps
    waiting: float  # seconds of them spent waiting for data
    images: int
    losses: dict[str, Points]
    speed: Points  # images per second
    shares: Points  # share of the time spent waiting for data, in %


def progress_of(run: Run) -> list[Progress]:
    """Return the progress of every stage of the recipe, in order, from the log. Invalid lines are skipped."""
    entries = [entry for entry in run.read_log() if isinstance(entry, dict) and number(entry.get("step")) is not None]
    result = []
    for stage in run.recipe.stages:
        of_stage = [entry for entry in entries if entry.get("stage") == stage.name and math.isfinite(entry["step"])]
        result.append(_progress(stage, run.finished(stage), of_stage))
    return result


def _progress(stage: Stage, finished: bool, entries: list[dict[str, Any]]) -> Progress:
    losses: dict[str, Points] = {}
    speed: Points = []
    shares: Points = []
    last, seconds, waiting, images = 0, 0.0, 0.0, 0
    for entry in entries:
        step = int(entry["step"])
        per_second, share = number(entry.get("images_per_s")), number(entry.get("data_share"))
        if per_second is not None and 0 < per_second < math.inf:
            new_images = max(step - last, 0) * stage.batch_size * stage.accumulate
            speed.append((step, per_second))
            images += new_images
            seconds += new_images / per_second
            if share is not None and 0 <= share <= 1:
                shares.append((step, 100 * share))
                waiting += share * new_images / per_second
        last = step
        values = entry.get("losses")
        for name, value in values.items() if isinstance(values, dict) else []:
            if (loss := number(value)) is not None:
                losses.setdefault(name, []).append((step, loss))
    return Progress(stage, finished, last, seconds, waiting, images, losses, speed, shares)


def speeds(progress: Progress) -> list[str]:
    """Return a stage's steps, images, time, images per second and share of time waiting for data, as texts."""
    seconds = progress.seconds
    return [
        f"{progress.done:,} of {progress.stage.steps:,}",
        f"{progress.images:,}" if seconds else "-",
        in_words(seconds) if seconds else "-",
        f"{progress.images / seconds:.1f}" if seconds else "-",
        f"{100 * progress.waiting / seconds:.1f} %" if progress.shares and seconds else "-",
    ]


def curves(progress: Progress) -> list[Markup]:
    """Draw a stage's losses and speed, and return an HTML figure for each."""
    weights = {part.name: f"weight {part.options.weight:g}" for part in progress.stage.losses}
    drawn = [curve(name, *_columns(points), weights.get(name, "")) for name, points in progress.losses.items()]
    if progress.speed:
        drawn.append(curve("images per second", *_columns(progress.speed)))
    if progress.shares:
        drawn.append(curve("waiting for data, %", *_columns(progress.shares)))
    return drawn


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
