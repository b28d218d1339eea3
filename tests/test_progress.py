"""Progress of long work, in a terminal and elsewhere."""

import pytest

from fsframework.utils.progress import in_words, progress, tracked


def test_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("fsframework.utils.progress.QUIET_SECONDS", 0.0)
    assert list(tracked(iter("abc"), "aligning x", 3, "pictures")) == ["a", "b", "c"]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("aligning x: 1/3 pictures, ")
    assert said.err.count(" s left") == 3


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("quick", 2) as ticker:
        ticker.advance(2)
    assert capsys.readouterr().err == ""


def test_resumed_work_counts_from_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fsframework.utils.progress.QUIET_SECONDS", 0.0)
    with progress("training", 10, "steps", done=6) as ticker:
        ticker.advance(note="loss 0.5")
    assert capsys.readouterr().err.startswith("training: 7/10 steps, ")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(tracked(iter("abc"), "aligning x", 3, "pictures")) == ["a", "b", "c"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "aligning x" in said.err and "3/3" in said.err


def test_durations() -> None:
    assert [in_words(each) for each in (0, 0.4, 12.4, 59.4, 65, 3599, 3600, 3700, 11_100, 90_000, 187_200)] == [
        "0 s", "0 s", "12 s", "59 s", "1 min 5 s", "59 min 59 s", "1 h", "1 h 1 min", "3 h 5 min", "1 d 1 h", "2 d 4 h",
    ]  # fmt: skip
