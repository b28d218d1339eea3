"""Answers are kept once, for good, even if the server is killed while they come in."""

import http.client
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fsframework.web.study.plan import Study
from fsframework.web.study.store import Answer, Full, OtherAnswer, Store, UnknownToken, read

CHOICES = {"identity": 0, "realism": 2}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with closing(Store(file, "one")) as store:
        yield store


def test_answers_come_back_while_the_store_is_open(store: Store, file: Path) -> None:
    token = store.join()
    assert store.participant(token) == (1, set())
    store.answer(token, 3, CHOICES)
    assert store.participant(token) == (1, {(3, "identity"), (3, "realism")})
    assert read(file, "one") == [Answer(1, 3, "identity", 0), Answer(1, 3, "realism", 2)]


def test_an_answer_that_comes_again_is_one(store: Store, file: Path) -> None:
    token = store.join()
    for _ in range(3):
        store.answer(token, 3, CHOICES)
    assert len(read(file, "one")) == 2


def test_the_first_answer_stands(store: Store, file: Path) -> None:
    token = store.join()
    store.answer(token, 3, {"realism": 2})
    with pytest.raises(OtherAnswer):
        store.answer(token, 3, {"identity": 0, "realism": 1})
    assert read(file, "one") == [Answer(1, 3, "realism", 2)]  # identity was not kept either


def test_the_table_itself_holds_no_answer_twice(store: Store, file: Path) -> None:
    store.answer(store.join(), 3, CHOICES)
    with closing(sqlite3.connect(file)) as tables, pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        tables.execute("INSERT INTO answers VALUES (1, 3, 'realism', 0)")


def test_commits_reach_the_disk(store: Store) -> None:
    settings = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]  # 2 is FULL


def test_withdrawing_leaves_nothing(store: Store, file: Path) -> None:
    gone, stays = store.join(), store.join()
    store.answer(gone, 0, CHOICES)
    store.answer(stays, 1, CHOICES)
    store.withdraw(gone)
    assert {answer.participant for answer in read(file, "one")} == {2}
    held = b"".join(part.read_bytes() for part in file.parent.glob("answers.sqlite*"))
    assert gone.encode() not in held and stays.encode() in held
    for call in (store.participant, store.withdraw):
        with pytest.raises(UnknownToken):
            call(gone)
    with pytest.raises(UnknownToken):
        store.answer(gone, 0, CHOICES)
    assert store.participant(store.join())[0] == 3  # numbers do not come again, so orders stay balanced


def test_everything_is_there_after_opening_again(file: Path) -> None:
    with closing(Store(file, "one")) as store:
        token = store.join()
        store.answer(token, 3, CHOICES)
    with closing(Store(file, "one")) as store:
        assert store.participant(token) == (1, {(3, "identity"), (3, "realism")})


def test_two_servers_may_share_a_file(store: Store, file: Path) -> None:
    with closing(Store(file, "one")) as other:
        tokens = [each.join() for each in (store, other, store)]
        assert [store.participant(token)[0] for token in tokens] == [1, 2, 3]


def test_many_threads(store: Store, file: Path) -> None:
    def take_part() -> None:
        token = store.join()
        for trial in range(10):
            store.answer(token, trial, CHOICES)

    threads = [threading.Thread(target=take_part) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = read(file, "one")
    assert len(answers) == len({answer[:3] for answer in answers}) == 8 * 10 * 2


def test_a_full_study(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsframework.web.study.store.MOST", 1)
    store.join()
    with pytest.raises(Full):
        store.join()


def test_files_that_cannot_be_used(file: Path, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    with expect_error(f"{tmp_path.name}: "):
        read(file, "one")
    with expect_error("answers.sqlite: ", hide={"unable to open database file": "REASON"}):  # as SQLite says
        Store(tmp_path / "nothing" / "answers.sqlite", "one")
    Store(file, "one").close()
    for use in (read, Store):
        with expect_error("answers.sqlite: "):
            use(file, "two")
    file.write_bytes(b"no database" * 100)
    for use in (read, Store):
        with expect_error("answers.sqlite: ", hide={"file is not a database": "REASON"}):
            use(file, "one")


def ask(address: str, method: str, path: str, token: str = "", body: Any = None) -> Any:
    """What the server answers. Raises OSError or HTTPException if it dies meanwhile."""
    with closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)) as connection:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status < 300, (answer.status, answer.read())
        return json.loads(answer.read())


@pytest.mark.parametrize("wait", [0.0, 0.02, 0.1])
def test_kill_while_answers_come_in(
    tmp_path: Path, toy_study: Callable[..., Study], serving: Callable[..., Any], wait: float
) -> None:
    """Eight participants answer when the server is killed: what was confirmed is there, and they go on."""
    folder = tmp_path / "study"
    study = toy_study(folder, trials=60, checks=2)
    confirmed: list[tuple[str, int]] = []  # token and place
    tokens: list[str] = []
    begun = threading.Semaphore(0)

    def answer(address: str, token: str, state: Any) -> None:
        while (task := state["next"]) is not None:
            choices = {question.id: task["options"][0] for question in study.questions}
            try:
                state = ask(address, "POST", "/api/answers", token, {"place": task["place"], "choices": choices})
            except (OSError, http.client.HTTPException):
                return
            confirmed.append((token, task["place"]))
            begun.release()

    def all_answer(address: str, states: dict[str, Any]) -> list[threading.Thread]:
        threads = [threading.Thread(target=answer, args=[address, *item]) for item in states.items()]
        for thread in threads:
            thread.start()
        return threads

    with serving(folder) as (address, process):
        joined = [ask(address, "POST", "/api/participants", body={"agreed": True}) for _ in range(8)]
        tokens = [state["token"] for state in joined]
        threads = all_answer(address, {state["token"]: state for state in joined})
        assert begun.acquire(timeout=60)
        time.sleep(wait)
        process.kill()
        for thread in threads:
            thread.join()
    assert 0 < len(confirmed) < 8 * 62
    found = {(answer.participant, answer.trial) for answer in read(folder / "answers.sqlite", study.id)}
    for token, place in confirmed:
        number = tokens.index(token) + 1
        assert (number, study.order(number)[place - 1]) in found

    with serving(folder) as (address, _):
        for thread in all_answer(address, {token: ask(address, "GET", "/api/trial", token) for token in tokens}):
            thread.join()
    answers = read(folder / "answers.sqlite", study.id)
    assert len(answers) == len({answer[:3] for answer in answers}) == 8 * 62 * 3
