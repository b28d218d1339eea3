"""How the training of a run went: loss curves of every stage, and how fast it was."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsframework.progress import in_words
from fsframework.recipe import Stage
from fsframework.report_curves import curve
from fsframework.report_html import Html, number, scrolling, section, tag
from fsframework.runs import Run

Points = list[tuple[float, float]]  # step and value


@dataclass(frozen=True)
class Progress:
    """What the log says of one stage."""

    stage: Stage
    finished: bool
    done: int  # steps
    seconds: float  # in those steps
    waiting: float  # seconds of them, for data
    images: int
    losses: dict[str, Points]
    speed: Points  # images a second
    shares: Points  # of the time, in %, waiting for data


def progress_of(run: Run) -> list[Progress]:
    """What the log says of every stage of the recipe, in order. Lines that say nothing are passed over."""
    entries = [entry for entry in run.read_log() if isinstance(entry, dict) and number(entry.get("step")) is not None]
    found = []
    for stage in run.recipe.stages:
        own = [entry for entry in entries if entry.get("stage") == stage.name and math.isfinite(entry["step"])]
        found.append(_progress(stage, run.finished(stage), own))
    return found


def _progress(stage: Stage, finished: bool, entries: list[dict[str, Any]]) -> Progress:
    losses: dict[str, Points] = {}
    speed: Points = []
    shares: Points = []
    last, seconds, waiting, images = 0, 0.0, 0.0, 0
    for entry in entries:
        step = int(entry["step"])
        per_second, share = number(entry.get("images_per_s")), number(entry.get("data_share"))
        if per_second is not None and 0 < per_second < math.inf:
            fresh = max(step - last, 0) * stage.batch_size * stage.accumulate
            speed.append((step, per_second))
            images += fresh
            seconds += fresh / per_second
            if share is not None and 0 <= share <= 1:
                shares.append((step, 100 * share))
                waiting += share * fresh / per_second
        last = step
        values = entry.get("losses")
        for name, value in values.items() if isinstance(values, dict) else []:
            if (known := number(value)) is not None:
                losses.setdefault(name, []).append((step, known))
    return Progress(stage, finished, last, seconds, waiting, images, losses, speed, shares)


def training(stages: Sequence[Progress]) -> Html:
    """The section with the curves; a sentence says why if there are none."""
    begun = [stage for stage in stages if stage.done]
    why = tag("p", "Nothing was logged yet: the curves appear here once training has begun.", class_="note")
    explained = "Pale: the logged values. Strong: their running mean. Losses are shown before they are weighted."
    return section(
        "training",
        "Training",
        _table(stages),
        [tag("p", explained, class_="soft"), *[_stage(stage) for stage in begun]] if begun else why,
    )


def _table(stages: Sequence[Progress]) -> Html:
    heads = ["stage", "trains", "steps", "images", "time", "images per second", "waiting for data"]
    rows = []
    for progress in stages:
        stage, seconds = progress.stage, progress.seconds
        cells = [
            f"{progress.done:,} of {stage.steps:,}",
            f"{progress.images:,}" if seconds else "-",
            in_words(seconds) if seconds else "-",
            f"{progress.images / seconds:.1f}" if seconds else "-",
            f"{100 * progress.waiting / seconds:.1f} %" if progress.shares and seconds else "-",
        ]
        written = [tag("td", cell, class_="number") for cell in cells]
        rows.append(tag("tr", tag("th", stage.name, scope="row"), tag("td", ", ".join(stage.train)), written))
    head = [tag("th", name, scope="col", class_="number" if place > 1 else None) for place, name in enumerate(heads)]
    return scrolling(tag("table", tag("thead", tag("tr", head)), tag("tbody", rows)), "Speed of the stages")


def _stage(progress: Progress) -> Html:
    weights = {part.name: f"weight {part.options.weight:g}" for part in progress.stage.losses}
    drawn = [curve(name, *_columns(points), weights.get(name, "")) for name, points in progress.losses.items()]
    if progress.speed:
        drawn.append(curve("images per second", *_columns(progress.speed)))
    if progress.shares:
        drawn.append(curve("waiting for data, %", *_columns(progress.shares)))
    return tag("div", tag("h3", progress.stage.name), tag("div", drawn, class_="charts"))


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
