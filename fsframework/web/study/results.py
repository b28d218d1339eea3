"""Results of a study: choices in percent with intervals, agreement, and every answer."""

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

MIN_CORRECT = 0.75  # minimum fraction of correct answers to attention checks
COUNTED, FAILED, UNCHECKED = "yes", "failed checks", "no check answered"  # states of participants


def results(folder: Path) -> dict[str, Any]:
    """Return the results of a study; a server may be running.

    A participant counts with correct answers to three quarters of the answered attention checks or more, and at least
    one. Unfinished participants count, too. The answers of all others are excluded.

    Returns
    -------
    {"participants": number with any answer, "counted", "failed_checks", "no_check", "finished": of those counted,
    "trials", "checks", "methods", "known_people": methods that support only people of their training data, "questions":
    [{"id", "text", "answers", "trials_rated": trials with two counted participants or more, "kappa", "methods":
    {name: {"choices", "percent", "percent_low", "percent_high"}}}, ...]}. Percentages are of the counted answers,
    intervals 95 % by bootstrap over participants; None is undefined.

    Raises
    ------
    UserError
        There is no study, it was never served, or a file is damaged.
    """
    study = Study.load(folder)
    answers = _answers(folder, study)
    states = _participant_states(study, answers)
    counted = [answer for answer in answers if states[answer.participant] == COUNTED]
    done = len(study.trials) * len(study.questions)
    per_person = np.bincount([answer.participant for answer in counted])
    outcomes = list(states.values())
    return {
        "participants": len(outcomes),
        "counted": outcomes.count(COUNTED),
        "failed_checks": outcomes.count(FAILED),
        "no_check": outcomes.count(UNCHECKED),
        "finished": int((per_person == done).sum()),
        "trials": sum(not trial.is_check for trial in study.trials),
        "checks": sum(trial.is_check for trial in study.trials),
        "methods": [method.name for method in study.methods],
        "known_people": [method.name for method in study.methods if method.known_people],
        "questions": [_question(study, question, counted) for question in study.questions],
    }


def _answers(folder: Path, study: Study) -> list[Answer]:
    """Return the answers that fit the study: all of them, unless a file was edited by hand."""
    ids = {question.id for question in study.questions}
    return [
        answer
        for answer in read(folder / ANSWERS, study.id)
        if answer.trial < len(study.trials) and answer.option < len(study.methods) and answer.question in ids
    ]


def _participant_states(study: Study, answers: Sequence[Answer]) -> dict[int, str]:
    """Return the state of each participant with an answer, by number."""
    correct_by_participant: dict[int, list[bool]] = {answer.participant: [] for answer in answers}
    for answer in answers:
        allowed = study.trials[answer.trial].right.get(answer.question)
        if allowed is not None:
            correct_by_participant[answer.participant].append(answer.option in allowed)
    return {
        participant: UNCHECKED if not correct else COUNTED if np.mean(correct) >= MIN_CORRECT else FAILED
        for participant, correct in correct_by_participant.items()
    }


def _question(study: Study, question: Question, counted: Sequence[Answer]) -> dict[str, Any]:
    """Return one question's part of `results`."""
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


def table(summary: dict[str, Any]) -> RenderableType:
    """Return the results for the terminal: a row for each question, a column for each method."""
    grid = Table()
    grid.add_column("% of choices")
    for name in summary["methods"]:
        dagger = "\N{DAGGER}" if name in summary["known_people"] else ""
        grid.add_column(Text(name + dagger), justify="right")
    grid.add_column("answers", justify="right")
    grid.add_column("kappa", justify="right")
    for question in summary["questions"]:
        cells = [_cell(numbers) for numbers in question["methods"].values()]
        kappa = "-" if question["kappa"] is None else f"{question['kappa']:.2f}"
        grid.add_row(Text(question["id"]), *cells, str(question["answers"]), kappa)
    return Group(grid, Text("\n".join(notes(summary)), style="dim"))


def _cell(numbers: dict[str, Any]) -> str:
    if numbers["percent"] is None:
        return "-"
    if numbers["percent_low"] is None:
        return f"{numbers['percent']:.1f}"
    return f"{numbers['percent']:.1f} ({numbers['percent_low']:.1f} to {numbers['percent_high']:.1f})"


def notes(summary: dict[str, Any]) -> list[str]:
    """Return the notes below the table: the questions, the participants and the statistics."""
    lines = [f"{question['id']}: {question['text']}" for question in summary["questions"]]
    lines.append(
        f"{summary['counted']} of {summary['participants']} participants count, {summary['finished']} of them "
        f"finished. Excluded: {summary['failed_checks']} failed the attention checks, {summary['no_check']} saw none."
    )
    lines.append(
        f"{summary['trials']} pairs, {summary['checks']} attention checks. By chance each method has "
        f"{100 / len(summary['methods']):.1f} %; 95 % intervals by bootstrap over participants, with fixed pairs."
    )
    lines.append("kappa: Fleiss' agreement among participants, 1 perfect, 0 as by chance.")
    if summary["known_people"]:
        lines.append(SEEN)
    return lines


def answers_text(folder: Path) -> str:
    """Return a CSV file's text with a line for each answer, including those of participants who do not count.

    `trial` is the index in study.json, from 0. `seen_as` is the trial's position in the participant's order, and
    `position` that of the image, both from 1. Attention checks are marked, and their choices are source, target or
    degraded.

    Raises
    ------
    UserError
        There is no study, it was never served, or a file is damaged.
    """
    study = Study.load(folder)
    answers = _answers(folder, study)
    states = _participant_states(study, answers)
    orders = {participant: study.order(participant) for participant in states}
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
                states[answer.participant],
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
