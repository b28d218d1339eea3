"""Load test of a study's server: count lost and duplicate answers, and measure response times.

    python benchmarks/scripts/study_load.py
    python benchmarks/scripts/study_load.py --participants 200 --pause 2

Each participant is a thread that behaves like the page: it requests the page and the pictures, sends the answers of a
trial and receives the next one. Every fifth answer is sent twice, as after a lost connection. Meanwhile
`fsf study results` reads the answers.
"""

import http.client
import json
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np

from fsframework.web.study.new import Shown, write
from fsframework.web.study.plan import ANSWERS, Method, Study
from fsframework.web.study.results import results
from fsframework.web.study.store import read

METHODS = ["a", "b", "c"]
AGAIN = 5  # on average, one of this many answers is sent twice


class Participant(threading.Thread):
    """Participant that answers all trials; `times` are the seconds from sending an answer to its confirmation."""

    def __init__(self, number: int, place: str, questions: list[str], pause: float) -> None:
        super().__init__()
        self.place, self.questions, self.pause = place, questions, pause
        self.random = random.Random(number)
        self.token = ""
        self.times: list[float] = []
        self.given: dict[tuple[int, str], str] = {}  # selected picture, by position and question

    def run(self) -> None:
        with closing(http.client.HTTPConnection(self.place, timeout=120)) as self.connection:
            for path in ("/", "/base.css", "/page.css", "/page.js", "/api/study"):
                self.ask("GET", path)
            state = json.loads(self.ask("POST", "/api/participants", {"agreed": True}))
            self.token = state["token"]
            while (task := state["next"]) is not None:
                for name in (task["source"], task["target"], *task["options"]):
                    self.ask("GET", f"/pictures/{name}")
                time.sleep(self.random.uniform(0, 2 * self.pause))
                choices = {question: self.random.choice(task["options"]) for question in self.questions}
                body = {"place": task["place"], "choices": choices}
                for _ in range(2 if self.random.randrange(AGAIN) == 0 else 1):
                    start = time.perf_counter()
                    state = json.loads(self.ask("POST", "/api/answers", body))
                    self.times.append(time.perf_counter() - start)
                self.given |= {(task["place"], question): name for question, name in choices.items()}

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        self.connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return content


@click.command(help=__doc__)
@click.option("--participants", default=50, show_default=True)
@click.option("--trials", default=30, show_default=True)
@click.option("--pause", default=0.0, show_default=True, help="Mean seconds per trial.")
def main(participants: int, trials: int, pause: float) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        study = make(folder, trials)
        command = [sys.executable, "-m", "fsframework", "study", "serve", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                match = next(filter(None, (re.search(r"http://(\S+)", line) for line in server.stdout)))
                start = time.perf_counter()
                people = [
                    Participant(number, match[1], [question.id for question in study.questions], pause)
                    for number in range(participants)
                ]
                for person in people:
                    person.start()
                while any(person.is_alive() for person in people):
                    time.sleep(1)
                    results(folder)
                seconds = time.perf_counter() - start
            finally:
                server.terminate()
        times = sorted(duration for person in people for duration in person.times)
        click.echo(
            f"{participants} participants, {trials} trials: {len(times) / seconds:.0f} trials a second answered; "
            f"milliseconds to the confirmation: median {1000 * statistics.median(times):.0f}, "
            f"99 % {1000 * np.quantile(times, 0.99):.0f}, most {1000 * times[-1]:.0f}"
        )
        lost, doubled, wrong = compare(folder, study, people)
    finished = sum(len(person.given) == len(study.trials) * len(study.questions) for person in people)
    click.echo(f"{finished} finished; answers: lost {lost}, doubled {doubled}, wrong {wrong}")
    sys.exit(0 if finished == participants and lost == doubled == wrong == 0 else 1)


def make(folder: Path, trials: int) -> Study:
    """Write and return a study with pictures of noise, about as large as faces."""
    rng = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)

    methods = [
        Method(name=name, model=name, recipe_sha256="", weights_sha256={}, size=64, known_people=False)
        for name in METHODS
    ]
    shown = [
        Shown((f"s{number}", f"t{number}"), noise(), noise(), [(name, noise()) for name in METHODS], {})
        for number in range(trials)
    ]
    return write(folder, methods, shown, 0, {"command": "", "evaluation": {}, "manifest": {}})


def compare(folder: Path, study: Study, people: list[Participant]) -> tuple[int, int, int]:
    """Return the numbers of confirmed answers that are missing, stored more than once, and stored wrongly."""
    with closing(sqlite3.connect(folder / ANSWERS)) as tables:
        numbers = dict(tables.execute("SELECT token, number FROM participants"))
    answers = read(folder / ANSWERS, study.id)
    stored = {answer[:3]: study.trials[answer.trial].options[answer.option].picture for answer in answers}
    given = {}
    for person in people:
        order = study.order(numbers[person.token])
        for (place, question), name in person.given.items():
            given[numbers[person.token], order[place - 1], question] = name
    wrong = sum(given.get(key) != name for key, name in stored.items())
    return len(given.keys() - stored.keys()), len(answers) - len(stored), wrong


if __name__ == "__main__":
    main()
