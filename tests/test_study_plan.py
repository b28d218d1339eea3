"""What a study is made of, and who sees what where: every order is random, the same again, and balanced."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsframework.web.study.plan import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, toy_study: Callable[..., Study]) -> Study:
    return toy_study(tmp_path_factory.mktemp("plan") / "study", methods=3, trials=20, checks=2, seed=7)


def test_orders_are_the_same_again(study: Study) -> None:
    again = Study.model_validate_json(study.model_dump_json())
    for participant in (1, 2, 50):
        assert again.order(participant) == study.order(participant)
        assert again.shown(3, participant) == study.shown(3, participant)


def test_orders_differ(study: Study) -> None:
    other = study.model_copy(update={"seed": 8})
    assert len({tuple(each.order(number)) for each in (study, other) for number in range(1, 21)}) == 40
    assert len({tuple(study.shown(trial, 1)) for trial in range(20)}) == 6  # all there are
    assert [study.shown(trial, 1) for trial in range(20)] != [other.shown(trial, 1) for trial in range(20)]


def test_everybody_sees_every_trial_once_and_each_half_has_its_check(study: Study) -> None:
    for participant in range(1, 30):
        order = study.order(participant)
        assert sorted(order) == list(range(22))
        assert [sum(study.trials[trial].is_check for trial in half) for half in (order[:11], order[11:])] == [1, 1]
    assert len({study.order(participant).index(20) for participant in range(1, 200)}) == 22  # checks may be anywhere


def test_every_method_stands_at_every_place_equally_often(study: Study) -> None:
    for trial in range(len(study.trials)):
        for first in (1, 4, 31):
            shown = [study.shown(trial, participant) for participant in range(first, first + 3)]
            assert all(sorted(places) == [0, 1, 2] for places in [*shown, *zip(*shown, strict=True)])
    after = Counter(tuple(study.shown(trial, number)) for trial in range(22) for number in range(1, 301))
    assert len(after) == 6 and min(after.values()) > 800 and max(after.values()) < 1400  # of 6600, in six orders


def test_a_study_without_checks_has_an_order(tmp_path: Path, toy_study: Callable[..., Study]) -> None:
    assert sorted(toy_study(tmp_path / "study", checks=0).order(1)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        ("{", "", "", "Invalid JSON: trailing characters at line 2 column 7"),
        ('"seed": 0', '"seed": -1', "seed: ", "Input should be greater than or equal to 0"),
        ('"seed": 0', '"seed": 0, "more": 1', "more: ", "Extra inputs are not permitted"),
        ('"what": "b"', '"what": "a"', "", None),
        ('"identity": [', '"beauty": [', "", None),
        ('"picture": "', '"picture": "../', "trials.0.options.0.picture: ", "String should match pattern"),
    ],
    ids=["no-json", "seed", "another-key", "order", "question", "picture"],
)
def test_damaged_studies(
    tmp_path: Path,
    toy_study: Callable[..., Study],
    old: str,
    new: str,
    place: str,
    reason: str | None,
    expect_error: Callable[..., Any],
) -> None:
    """`reason` is what pydantic says, if it finds the damage."""
    toy_study(tmp_path / "study")
    file = tmp_path / "study" / "study.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with expect_error(f"study.json: {place}", hide={reason: "REASON"} if reason else None):
        Study.load(tmp_path / "study")


def test_no_study(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"{tmp_path.name}: "):
        Study.load(tmp_path)
