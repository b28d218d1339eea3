"""The study's server: what it answers, what it refuses, what it tells."""

import errno
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from fsframework.cli.main import fsf
from fsframework.core.errors import UserError
from fsframework.web.server import HEADERS
from fsframework.web.study.plan import Study
from fsframework.web.study.server import LARGEST, serve
from fsframework.web.study.store import Answer, read

ROOT = Path(__file__).parents[1]
NO_UTF_8 = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a running server."""

    def __init__(self, address: str) -> None:
        self.place = address.removeprefix("http://")
        self.token = ""

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"} | headers
        with closing(http.client.HTTPConnection(self.place, timeout=30)) as connection:
            connection.request(method, path, sent, given)
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())

    def join(self) -> Any:
        state = self("POST", "/api/participants", {"agreed": True}).said
        self.token = state["token"]
        return state

    def answer(self, task: Any, chosen: int = 0, **changes: Any) -> Reply:
        choices = {question: task["options"][chosen] for question in ("identity", "attributes", "realism")}
        return self("POST", "/api/answers", {"place": task["place"], "choices": choices} | changes)


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, toy_study: Callable[..., Study], serving: Callable[..., Any]
) -> Iterator[tuple[str, Path, Study]]:
    folder = tmp_path_factory.mktemp("served") / "study"
    study = toy_study(folder)
    with serving(folder) as (address, _):
        yield address, folder, study


@pytest.fixture
def client(served: tuple[str, Path, Study]) -> Client:
    return Client(served[0])


@pytest.fixture
def study(served: tuple[str, Path, Study]) -> Study:
    return served[2]


def answers_of(served: tuple[str, Path, Study], client: Client) -> list[Answer]:
    """What is stored of a participant."""
    _, folder, study = served
    with closing(sqlite3.connect(folder / "answers.sqlite")) as tables:
        ((number,),) = tables.execute("SELECT number FROM participants WHERE token = ?", [client.token]).fetchall()
    return [answer for answer in read(folder / "answers.sqlite", study.id) if answer.participant == number]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/base.css", "text/css"), ("/page.css", "text/css"), ("/page.js", "text/javascript")],
)
def test_page(client: Client, path: str, kind: str) -> None:
    reply = client("GET", path)
    assert reply.status == 200 and reply.headers["content-type"].startswith(kind)
    assert {key: reply.headers[key.lower()] for key in HEADERS} == HEADERS
    assert b"http" not in reply.body  # nothing from elsewhere
    assert "set-cookie" not in reply.headers and "server" not in reply.headers


def test_every_page_says_that_the_pictures_are_synthetic(client: Client) -> None:
    before, _, _ = client("GET", "/").body.partition(b"<main>")
    assert b"<strong>synthetic pictures</strong>" in before  # above all parts that the script shows and hides


def test_policy_allows_nothing_inline(client: Client) -> None:
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'")
    page = client("GET", "/").body
    assert b"style=" not in page and b"onclick" not in page and b"<style" not in page


def test_about(client: Client, study: Study) -> None:
    said = client("GET", "/api/study").said
    assert said["trials"] == 6 and said["id"] == study.id
    assert [question["id"] for question in said["questions"]] == ["identity", "attributes", "realism"]
    assert said["consent"][0].startswith("In this study") and len(said["consent"]) == 5


def test_a_whole_study(client: Client, served: tuple[str, Path, Study], study: Study) -> None:
    state = client.join()
    assert client("GET", "/api/trial").said == {key: state[key] for key in ("trials", "answered", "next")}
    seen: list[Any] = []
    while (task := state["next"]) is not None:
        assert state["answered"] == len(seen) and task["place"] == len(seen) + 1
        for name in (task["source"], task["target"], *task["options"]):
            picture = client("GET", f"/pictures/{name}")
            assert picture.headers["content-type"] == "image/png" and "max-age" in picture.headers["cache-control"]
        seen.append(task)
        state = client.answer(task, 1).said
    assert state == {"trials": 6, "answered": 6, "next": None}
    stored = answers_of(served, client)
    number = stored[0].participant
    order = study.order(number)
    assert len(stored) == 18
    assert {answer.trial: answer.option for answer in stored} == {
        trial: study.shown(trial, number)[1] for trial in order
    }
    shown = [[study.trials[trial].options[at].picture for at in study.shown(trial, number)] for trial in order]
    assert [task["options"] for task in seen] == shown


def test_nothing_tells_a_method_or_a_check(client: Client, study: Study) -> None:
    """All that is said of trials is where they stand and names of pictures, each of which comes once."""
    state = client.join()
    assert state["next"].keys() == {"place", "source", "target", "options"}
    assert len(study.pictures()) == 6 * 5
    for text in (json.dumps(state), client("GET", "/api/study").body.decode()):
        assert not [word for word in ("a", "b", "c", "source.png", "degraded", "right") if f'"{word}"' in text]


def test_coming_back(client: Client) -> None:
    task = client.join()["next"]
    after = client.answer(task).said
    assert Client.__call__(client, "GET", "/api/trial").said == after and after["answered"] == 1


def test_an_answer_that_is_sent_again(
    client: Client, served: tuple[str, Path, Study], check_message: Callable[..., None]
) -> None:
    task = client.join()["next"]
    first, again = client.answer(task), client.answer(task)
    assert first.status == again.status == 200 and first.said == again.said
    other = client.answer(task, 1)
    assert other.status == 409
    check_message(other.said["error"])
    assert len(answers_of(served, client)) == 3


def test_withdrawing(client: Client, served: tuple[str, Path, Study], study: Study) -> None:
    client.answer(client.join()["next"])
    (number,) = {answer.participant for answer in answers_of(served, client)}
    assert client("DELETE", "/api/participants").said == {"withdrawn": True}
    assert number not in {answer.participant for answer in read(served[1] / "answers.sqlite", study.id)}
    for method, path in [("GET", "/api/trial"), ("DELETE", "/api/participants")]:
        assert client(method, path).status == 401


@pytest.mark.parametrize("token", ["", "x", "' OR 1=1 --", "x" * 5000], ids=["none", "short", "sql", "long"])
def test_unknown_tokens(client: Client, token: str, check_message: Callable[..., None]) -> None:
    client.token = token
    sentences = set()
    for method, path in [("GET", "/api/trial"), ("POST", "/api/answers"), ("DELETE", "/api/participants")]:
        body = {"place": 1, "choices": {}} if method == "POST" else None
        reply = client(method, path, body)
        assert reply.status == 401
        sentences.add(reply.said["error"])
    (sentence,) = sentences
    check_message(sentence)


@pytest.mark.parametrize(
    ("changes", "status", "place"),
    [
        ({"place": 7}, 404, None),
        ({"place": 0}, 422, "body.place: "),
        ({"place": "1"}, 422, "body.place: "),
        ({"place": 1e30}, 422, "body.place: "),
        ({"more": 1}, 422, "body.more: "),
        ({"choices": {}}, 422, None),
        ({"choices": {"beauty": "x.png"}}, 422, None),
        ({"choices": {"identity": "x", "attributes": "x", "realism": "x"}}, 422, None),
        ({"choices": {"identity": 1}}, 422, "body.choices.identity: "),
        ({"choices": [1]}, 422, "body.choices: "),
    ],
    ids=["after-the-last", "zero", "text", "huge", "more", "none", "question", "picture", "number", "list"],
)
def test_wrong_answers(
    client: Client,
    served: tuple[str, Path, Study],
    changes: dict[str, Any],
    status: int,
    place: str | None,
    check_message: Callable[..., None],
) -> None:
    """After a place stands what pydantic says, other sentences are the server's."""
    reply = client.answer(client.join()["next"], **changes)
    sentence = reply.said["error"]
    assert (reply.status, sentence[: len(place or "")]) == (status, place or "")
    assert sentence.endswith(".") and reply.headers["content-security-policy"]
    if place is None:
        check_message(sentence)
    assert answers_of(served, client) == []


def test_a_picture_of_another_trial_is_no_option(client: Client) -> None:
    first = client.join()["next"]
    second = client.answer(first).said["next"]
    assert client.answer(second, place=first["place"]).status == 422


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/pictures/study.json", None, 404),
        ("GET", "/pictures/..%2Fstudy.json", None, 404),
        ("GET", "/pictures/%2e%2e/answers.sqlite", None, 404),
        ("GET", "/study.json", None, 404),
        ("GET", "/answers.sqlite", None, 404),
        ("GET", "/docs", None, 404),
        ("GET", "/openapi.json", None, 404),
        ("PUT", "/api/answers", None, 405),
        ("POST", "/api/participants", {}, 422),
        ("POST", "/api/participants", {"agreed": False}, 422),
        ("POST", "/api/participants", {"agreed": True, "name": "x"}, 422),
        ("POST", "/api/participants", b"{", 422),
        ("POST", "/api/participants", b"\xff", 400),
        ("POST", "/api/participants", b"[" * 4000, 400),
        ("POST", "/api/participants", b" " * (LARGEST + 1), 413),
    ],
)
def test_other_refusals(client: Client, method: str, path: str, body: Any, status: int) -> None:
    reply = client(method, path, body)
    assert reply.status == status
    assert reply.said.keys() == {"error"} and reply.said["error"].endswith(".")


def test_bodies_of_unknown_size_are_refused(client: Client) -> None:
    with closing(http.client.HTTPConnection(client.place, timeout=30)) as connection:
        connection.request("POST", "/api/participants", iter([b'{"agreed": ', b"true}"]), encode_chunked=True)
        assert connection.getresponse().status == 413


def test_the_file_holds_nothing_of_a_person(client: Client, served: tuple[str, Path, Study]) -> None:
    client("POST", "/api/participants", {"agreed": True}, **{"User-Agent": "somebody's phone"})
    with closing(sqlite3.connect(served[1] / "answers.sqlite")) as tables:
        made = "".join(text for (text,) in tables.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
        assert "number" in made and not {"time", "date", "address", "agent"} & set(made.lower().split())
        assert "phone" not in "".join(tables.iterdump()) and "127.0" not in "".join(tables.iterdump())


def reason(error: BaseException) -> str:
    """What the system said about an address."""
    assert isinstance(error, UserError) and isinstance(error.__cause__, OSError)
    return str(error.__cause__.strerror)


def test_port_that_is_taken(served: tuple[str, Path, Study], check_message: Callable[..., None]) -> None:
    address, folder, _ = served
    port = address.rpartition(":")[2]
    with pytest.raises(UserError) as error:
        CliRunner().invoke(fsf, ["study", "serve", str(folder), "--port", port], catch_exceptions=False)
    assert str(error.value).startswith(f"127.0.0.1:{port}: ")
    check_message(str(error.value), {reason(error.value): "REASON", port: "PORT"})


@pytest.mark.parametrize(
    ("damage", "place", "reason"),
    [
        (lambda folder: (folder / "study.json").unlink(), "study: ", None),
        (lambda folder: (folder / "consent.txt").unlink(), "consent.txt: ", os.strerror(errno.ENOENT)),
        (lambda folder: (folder / "consent.txt").write_text("\n \n"), "consent.txt: ", None),
        (
            lambda folder: (folder / "consent.txt").write_bytes(b"\xff"),
            "consent.txt: ",
            NO_UTF_8,
        ),
        (lambda folder: (folder / "answers.sqlite").mkdir(), "answers.sqlite: ", "unable to open database file"),
    ],
    ids=["no-study", "no-consent", "empty-consent", "binary-consent", "answers"],
)
def test_folders_that_cannot_be_served(
    tmp_path: Path,
    toy_study: Callable[..., Study],
    damage: Callable[[Path], object],
    place: str,
    reason: str | None,
    expect_error: Callable[..., Any],
) -> None:
    """`reason` is what the system or a library says."""
    toy_study(tmp_path / "study")
    damage(tmp_path / "study")
    with expect_error(place, hide={reason: "REASON"} if reason else None):
        serve(tmp_path / "study", "127.0.0.1", 0, print)


def test_a_picture_that_is_missing(
    tmp_path: Path, toy_study: Callable[..., Study], expect_error: Callable[..., Any]
) -> None:
    toy_study(tmp_path / "study")
    picture = next((tmp_path / "study" / "pictures").iterdir())
    picture.unlink()
    with expect_error(f"{picture.name}: ", hide={picture.name: "PICTURE"}):
        serve(tmp_path / "study", "127.0.0.1", 0, print)


def test_host_that_does_not_exist(
    tmp_path: Path, toy_study: Callable[..., Study], check_message: Callable[..., None]
) -> None:
    toy_study(tmp_path / "study")
    with pytest.raises(UserError) as error:
        serve(tmp_path / "study", "192.0.2.1", 0, print)
    assert str(error.value).startswith("192.0.2.1:0: ")
    check_message(str(error.value), {reason(error.value): "REASON"})


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ends(
    tmp_path: Path, toy_study: Callable[..., Study], serving: Callable[..., Any], number: int, status: int
) -> None:
    """While a browser keeps its connection open."""
    toy_study(tmp_path / "study")
    with serving(tmp_path / "study") as (address, process):
        host, _, port = address.removeprefix("http://").rpartition(":")
        with closing(socket.create_connection((host, int(port)), timeout=30)) as open_connection:
            open_connection.sendall(b"GET /api/study HTTP/1.1\r\nHost: x\r\n\r\n")
            assert open_connection.recv(12) == b"HTTP/1.1 200"
            process.send_signal(number)
            assert process.wait(30) == status
    assert not list((tmp_path / "study").glob("answers.sqlite-*"))  # closed in order


@pytest.mark.parametrize(
    ("consent", "noted"), [(None, True), ("We ask.\n\nUs: we@example.org", False)], ids=["nobody", "us"]
)
def test_a_note_as_long_as_nobody_is_named(
    tmp_path: Path,
    toy_study: Callable[..., Study],
    consent: str | None,
    noted: bool,
    check_message: Callable[..., None],
) -> None:
    toy_study(tmp_path / "study")
    if consent is not None:
        (tmp_path / "study" / "consent.txt").write_text(consent)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("study: "):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        serve(tmp_path / "study", "127.0.0.1", 0, say)
    assert [line.partition(": ")[0] for line in said] == (["note", "study"] if noted else ["study"])
    if noted:
        check_message(said[0])


@pytest.mark.system
def test_without_fastapi(check_message: Callable[..., None]) -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; import fsframework.cli.main as cli\n"
        "sys.argv = ['fsf', 'study', 'serve', 'x']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fsf study serve ")
    check_message(line)


@pytest.mark.system
def test_fifty_people_at_once() -> None:
    """A smaller version of the load test, without pauses; the script fails if an answer is lost or doubled."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "scripts" / "study_load.py"),
        "--participants",
        "50",
        "--trials",
        "4",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, doubled 0, wrong 0" in done.stdout
