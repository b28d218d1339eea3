"""What people chose: shares with intervals, agreement, and every answer."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fsframework.evaluation.bootstrap import bootstrap
from fsframework.report.comparison import SEEN
from fsframework.web.study.agreement import fleiss_kappa
from fsframework.web.study.plan import ANSWERS, Question, Study
from fsframework.web.study.store import Answer, read

PASSED = 0.75  # share of the answers to attention checks that must be right
COUNTED, FAILED, UNCHECKED = "yes", "failed checks", "no check answered"  # whether a participant counts, and why not


def results(folder: Path) -> dict[str, Any]:
    """The results of a study; a server may go on taking answers.

    A participant counts who answered attention checks and did so rightly in three quarters of the answers or more,
    whether or not all trials are done. Of the others nothing is used.

    Returns
    -------
    {"participants": how many answered anything, "counted", "failed_checks", "no_check", "finished": of those counted,
    "trials", "checks", "methods", "known_people": methods that paint only people they know, "questions":
    [{"id", "text", "answers", "trials_rated": trials with two counted participants or more, "kappa", "methods":
    {name: {"choices", "percent", "percent_low", "percent_high"}}}, ...]}. Percentages are of the counted answers,
    intervals 95 % by bootstrap over participants; None is what cannot be said.

    Raises
    ------
    UserError
        There is no study, nobody was asked yet, or a file is damaged.
    """
    study = Study.load(folder)
    answers = _answers(folder, study)
    counts = _who_counts(study, answers)
    counted = [answer for answer in answers if counts[answer.participant] == COUNTED]
    done = len(study.trials) * len(study.questions)
    per_person = np.bincount([answer.participant for answer in counted])
    found = list(counts.values())
    return {
        "participants": len(found),
        "counted": found.count(COUNTED),
        "failed_checks": found.count(FAILED),
        "no_check": found.count(UNCHECKED),
        "finished": int((per_person == done).sum()),
        "trials": sum(not trial.is_check for trial in study.trials),
        "checks": sum(trial.is_check for trial in study.trials),
        "methods": [method.name for method in study.methods],
        "known_people": [method.name for method in study.methods if method.known_people],
        "questions": [_question(study, question, counted) for question in study.questions],
    }


def _answers(folder: Path, study: Study) -> list[Answer]:
    """Those that fit the study, which are all unless somebody changed a file by hand."""
    ids = {question.id for question in study.questions}
    return [
        answer
        for answer in read(folder / ANSWERS, study.id)
        if answer.trial < len(study.trials) and answer.option < len(study.methods) and answer.question in ids
    ]


def _who_counts(study: Study, answers: Sequence[Answer]) -> dict[int, str]:
    """Of everybody who answered, by number, whether they count."""
    right: dict[int, list[bool]] = {answer.participant: [] for answer in answers}
    for answer in answers:
        allowed = study.trials[answer.trial].right.get(answer.question)
        if allowed is not None:
            right[answer.participant].append(answer.option in allowed)
    return {
        participant: UNCHECKED if not marks else COUNTED if np.mean(marks) >= PASSED else FAILED
        for participant, marks in right.items()
    }


def _question(study: Study, question: Question, counted: Sequence[Answer]) -> dict[str, Any]:
    """One question's part of `results`."""
    chosen = [a for a in counted if a.question == question.id and not study.trials[a.trial].is_check]
    trials = np.array([answer.trial for answer in chosen], dtype=np.int64)  # (n,)
    options = np.array([answer.option for answer in chosen], dtype=np.int64)  # (n,)
    people = np.array([answer.participant for answer in chosen], dtype=np.int64)  # (n,)
    table = np.zeros((len(study.trials), len(study.methods)), dtype=np.int64)
    np.add.at(table, (trials, options), 1)
    methods = {}
    for number, method in enumerate(study.methods):
        is_chosen = 100.0 * (options == number)
        low, high = bootstrap(is_chosen, people) or (None, None)
        methods[method.name] = {
            "choices": int((options == number).sum()),
            "percent": float(is_chosen.mean()) if chosen else None,
            "percent_low": low,
            "percent_high": high,
        }
    return {
        "id": question.id,
        "text": question.text,
        "answers": len(chosen),
        "trials_rated": int((table.sum(axis=1) > 1).sum()),
        "kappa": fleiss_kappa(table),
        "methods": methods,
    }


def table(found: dict[str, Any]) -> RenderableType:
    """The results for the terminal: a row for each question, a column for each method."""
    grid = Table()
    grid.add_column("% of choices")
    for name in found["methods"]:
        dagger = "\N{DAGGER}" if name in found["known_people"] else ""
        grid.add_column(Text(name + dagger), justify="right")
    grid.add_column("answers", justify="right")
    grid.add_column("kappa", justify="right")
    for question in found["questions"]:
        cells = [_cell(numbers) for numbers in question["methods"].values()]
        kappa = "-" if question["kappa"] is None else f"{question['kappa']:.2f}"
        grid.add_row(Text(question["id"]), *cells, str(question["answers"]), kappa)
    return Group(grid, Text("\n".join(notes(found)), style="dim"))


def _cell(numbers: dict[str, Any]) -> str:
    if numbers["percent"] is None:
        return "-"
    if numbers["percent_low"] is None:
        return f"{numbers['percent']:.1f}"
    return f"{numbers['percent']:.1f} ({numbers['percent_low']:.1f} to {numbers['percent_high']:.1f})"


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader must know."""
    lines = [f"{question['id']}: {question['text']}" for question in found["questions"]]
    lines.append(
        f"{found['counted']} of {found['participants']} participants count, {found['finished']} of them finished; left "
        f"out: {found['failed_checks']} who failed the attention checks, {found['no_check']} who met none."
    )
    lines.append(
        f"{found['trials']} pairs, {found['checks']} attention checks. By chance each method has "
        f"{100 / len(found['methods']):.1f} %; 95 % intervals by bootstrap over participants, the pairs taken as given."
    )
    lines.append("kappa: Fleiss' agreement among participants, 1 perfect, 0 as by chance.")
    if found["known_people"]:
        lines.append(SEEN)
    return lines


def answers_text(folder: Path) -> str:
    """The text of a CSV file with a line for each answer, those of participants who do not count too.

    `trial` is the place in study.json, from 0; `seen_as` is the trial's place in the participant's order, `position`
    that of the picture, both from 1. Attention checks are marked, and their choices are source, target or degraded.

    Raises
    ------
    UserError
        As `results`.
    """
    study = Study.load(folder)
    answers = _answers(folder, study)
    counts = _who_counts(study, answers)
    orders = {participant: study.order(participant) for participant in counts}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["participant", "counts", "trial", "seen_as", "check", "source", "target", "question", "choice", "position"]
    )
    for answer in answers:
        trial = study.trials[answer.trial]
        writer.writerow(
            [
                answer.participant,
                counts[answer.participant],
                answer.trial,
                orders[answer.participant].index(answer.trial) + 1,
                "yes" if trial.is_check else "no",
                *trial.pair,
                answer.question,
                trial.options[answer.option].what,
                study.shown(answer.trial, answer.participant).index(answer.option) + 1,
            ]
        )
    return text.getvalue()
