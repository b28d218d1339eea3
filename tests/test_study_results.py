"""Shares, agreement and the attention checks, against numbers worked out by hand."""

import csv
import errno
import io
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from fsframework.cli.main import fsf
from fsframework.evaluation.bootstrap import bootstrap
from fsframework.web.study.agreement import fleiss_kappa
from fsframework.web.study.plan import Study
from fsframework.web.study.results import answers_text, notes, results, table
from fsframework.web.study.store import Store

# Fleiss (1971), table 1: 30 patients, each diagnosed by six psychiatrists as depressive, of disordered personality,
# schizophrenic, neurotic or something else.
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


def test_kappa_of_the_worked_example() -> None:
    counts = np.array([[int(digit) for digit in row] for row in DIAGNOSES.split()])
    assert counts.shape == (30, 5) and (counts.sum(axis=1) == 6).all()
    assert counts.sum(axis=0) / 180 == pytest.approx([0.144, 0.144, 0.167, 0.306, 0.239], abs=5e-4)  # as printed there
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)


@pytest.mark.parametrize(
    ("counts", "kappa"),
    [
        ([[3, 0], [0, 3]], 1.0),
        ([[1, 1], [1, 1]], -1.0),  # nobody agrees: (0 - 1/2) / (1 - 1/2)
        ([[2, 0], [1, 1]], -1 / 3),  # (1/2 - 5/8) / (1 - 5/8)
        # 4, 2, 3, 1 and no raters. Observed: (1/2 + 1 + 1/3) / 3 = 11/18. Shares: of the first category
        # (3/4 + 1 + 1/3 + 0) / 4 = 25/48, of the second 23/48; by chance (625 + 529) / 2304 = 577/1152.
        ([[3, 1], [2, 0], [1, 2], [0, 1], [0, 0]], (11 / 18 - 577 / 1152) / (1 - 577 / 1152)),
        ([[2, 0], [3, 0]], None),  # one category: nothing to agree about
        ([[1, 0], [0, 1]], None),  # one rater each
        ([[0, 0]], None),
    ],
)
def test_kappa_by_hand(counts: list[list[int]], kappa: float | None) -> None:
    assert fleiss_kappa(np.array(counts)) == (None if kappa is None else pytest.approx(kappa))


@pytest.fixture
def folder(tmp_path: Path, toy_study: Callable[..., Study]) -> Path:
    """Three methods, two trials, two checks; six people.

    1 and 2 answer everything, 3 one trial and one check; 4 fails both checks, 5 met none, 6 answered nothing.
    """
    folder = tmp_path / "study"
    study = toy_study(folder, methods=3, trials=2, checks=2)
    attentive = {"identity": 0, "attributes": 1, "realism": 0}
    given: list[dict[int, dict[str, int]]] = [
        {
            0: {"identity": 0, "attributes": 1, "realism": 2},
            1: {"identity": 0, "attributes": 1, "realism": 2},
            2: attentive,
            3: attentive | {"realism": 1},
        },
        {
            0: {"identity": 0, "attributes": 1, "realism": 0},
            1: {"identity": 1, "attributes": 1, "realism": 2},
            2: attentive | {"realism": 2},  # a slip: five of six are right
            3: attentive,
        },
        {0: {"identity": 2, "attributes": 1, "realism": 2}, 2: attentive},
        {0: dict.fromkeys(attentive, 2), 2: dict.fromkeys(attentive, 2), 3: attentive | {"realism": 2}},
        {0: dict.fromkeys(attentive, 1)},
        {},
    ]
    with closing(Store(folder / "answers.sqlite", study.id)) as store:
        for answers in given:
            token = store.join()
            for trial, choices in answers.items():
                store.answer(token, trial, choices)
    return folder


def test_who_counts(folder: Path) -> None:
    found = results(folder)
    keys = ("participants", "counted", "failed_checks", "no_check", "finished", "trials", "checks")
    assert [found[key] for key in keys] == [5, 3, 1, 1, 2, 2, 2]


def test_shares(folder: Path) -> None:
    identity, attributes, realism = results(folder)["questions"]
    shares = {
        question["id"]: [numbers["percent"] for numbers in question["methods"].values()]
        for question in (identity, attributes, realism)
    }
    assert shares == {"identity": [60, 20, 20], "attributes": [0, 100, 0], "realism": [20, 0, 80]}
    assert [numbers["choices"] for numbers in identity["methods"].values()] == [3, 1, 1]
    assert identity["answers"] == 5 and identity["trials_rated"] == 2


def test_intervals_are_of_participants(folder: Path) -> None:
    first = results(folder)["questions"][0]["methods"]["a"]
    wanted = bootstrap(np.array([100.0, 100, 100, 0, 0]), np.array([1, 1, 2, 2, 3]))
    assert (first["percent_low"], first["percent_high"]) == wanted == (0, 100)
    sure = results(folder)["questions"][1]["methods"]["b"]
    assert (sure["percent_low"], sure["percent_high"]) == (100, 100)


def test_agreement(folder: Path) -> None:
    identity, attributes, realism = (question["kappa"] for question in results(folder)["questions"])
    # identity: trial 0 has a, a, c and trial 1 a, b. Observed (1/3 + 0) / 2; shares 7/12, 1/4, 1/6.
    chance = (49 + 9 + 4) / 144
    assert identity == pytest.approx((1 / 6 - chance) / (1 - chance))
    assert attributes is None  # all chose b
    # realism: c, a, c and c, c. Observed (1/3 + 1) / 2; shares 1/6 and 5/6.
    assert realism == pytest.approx((2 / 3 - 26 / 36) / (1 - 26 / 36))


def test_nobody_has_answered(tmp_path: Path, toy_study: Callable[..., Study], expect_error: Callable[..., Any]) -> None:
    study = toy_study(tmp_path / "study")
    with expect_error("study: "):
        results(tmp_path / "study")
    Store(tmp_path / "study" / "answers.sqlite", study.id).close()
    found = results(tmp_path / "study")
    assert found["participants"] == 0 and found["questions"][0]["kappa"] is None
    assert found["questions"][0]["methods"]["a"] == dict.fromkeys(("percent", "percent_low", "percent_high")) | {
        "choices": 0
    }
    assert "│ -" in shown(found) or " - " in shown(found)


def shown(found: dict[str, Any]) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table(found))
    return captured.get()


def test_table(folder: Path, check_message: Callable[..., None]) -> None:
    found = results(folder) | {"known_people": ["b"]}
    text = shown(found)
    assert "60.0 (0.0 to 100.0)" in text and "b†" in text
    for note in notes(found):
        assert "".join(note.split()) in "".join(text.split())  # lines are wrapped
        check_message(note)


def test_every_answer_is_a_line(folder: Path) -> None:
    study = Study.load(folder)
    rows = list(csv.DictReader(io.StringIO(answers_text(folder))))
    assert len(rows) == 12 + 12 + 6 + 9 + 3
    assert rows[2] == {
        "participant": "1",
        "counts": "yes",
        "trial": "0",
        "seen_as": str(study.order(1).index(0) + 1),
        "check": "no",
        "source": "s0",
        "target": "t0",
        "question": "realism",
        "choice": "c",
        "position": str(study.shown(0, 1).index(2) + 1),
    }
    assert {row["participant"]: row["counts"] for row in rows} == {
        "1": "yes", "2": "yes", "3": "yes", "4": "failed checks", "5": "no check answered"
    }  # fmt: skip
    assert {row["choice"] for row in rows if row["check"] == "yes"} == {"source", "target", "degraded"}


def test_command(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(fsf, ["study", "results", str(folder), "--csv", str(tmp_path / "all.csv")])
    assert done.exit_code == 0 and "60.0 (0.0 to 100.0)" in done.output
    assert (tmp_path / "all.csv").read_text() == answers_text(folder)
    done = CliRunner().invoke(fsf, ["study", "results", str(folder), "--json"])
    assert json.loads(done.output) == results(folder)


def test_mistakes(folder: Path, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    for where in (tmp_path, tmp_path / "nothing"):
        with expect_error(f"{where.name}: "):
            results(where)
    with expect_error("all.csv: ", hide={os.strerror(errno.ENOENT): "REASON"}):
        CliRunner().invoke(
            fsf, ["study", "results", str(folder), "--csv", str(tmp_path / "no" / "all.csv")], catch_exceptions=False
        )
