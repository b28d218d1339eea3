"""The answers of a study in an SQLite file.

For each participant it holds a number, a random token and the choices: no name, no address, no time. When a method
returns, its changes are on disk (write-ahead log, synced at every commit). Other processes may read at the same time.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from fsframework.core.errors import UserError

PATIENCE = 30.0  # seconds to wait for another process's write lock
MOST = 100_000  # participants

_TABLES = """
CREATE TABLE IF NOT EXISTS study (id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS participants (number INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS answers (
  participant INTEGER NOT NULL REFERENCES participants (number) ON DELETE CASCADE,
  trial INTEGER NOT NULL,
  question TEXT NOT NULL,
  option INTEGER NOT NULL,
  PRIMARY KEY (participant, trial, question)
) WITHOUT ROWID;
"""


class Answer(NamedTuple):
    """A choice: `trial` and `option` are indices into the study's lists."""

    participant: int
    trial: int
    question: str
    option: int


class UnknownToken(Exception):
    """No participant has this token, perhaps because the answers were withdrawn."""


class OtherAnswer(Exception):
    """The question already has another answer; the first one stands."""


class Full(Exception):
    """The store has its maximum number of participants."""


class Store:
    """The answers of one study. All methods are thread-safe.

    Parameters
    ----------
    file:
        The SQLite file, created if it is missing.
    study:
        The study's id, so that answers of another study are refused.

    Raises
    ------
    UserError
        The file cannot be used, or belongs to another study.
    """

    def __init__(self, file: Path, study: str) -> None:
        self.file = file
        self._lock = threading.Lock()
        with _readable(file):
            self._connection = sqlite3.connect(file, PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                    self._connection.execute(f"PRAGMA {setting}")
                self._connection.executescript(_TABLES)
                with self._transaction() as tables:
                    tables.execute("INSERT INTO study SELECT ? WHERE NOT EXISTS (SELECT * FROM study)", [study])
                _check_study(self._connection, file, study)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the file; the write-ahead log is merged into it."""
        with self._lock:
            self._connection.close()

    def join(self) -> str:
        """Return the token of a new participant. Raise Full."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as tables:
            (count,) = tables.execute("SELECT count(*) FROM participants").fetchone()
            if count >= MOST:
                raise Full
            tables.execute("INSERT INTO participants (token) VALUES (?)", [token])
        return token

    def participant(self, token: str) -> tuple[int, set[tuple[int, str]]]:
        """Return a participant's number, from 1, and answered (trial, question) pairs. Raise UnknownToken."""
        with self._transaction() as tables:
            number = _number(tables, token)
            rows = tables.execute("SELECT trial, question FROM answers WHERE participant = ?", [number])
            return number, set(rows.fetchall())

    def answer(self, token: str, trial: int, choices: Mapping[str, int]) -> None:
        """Store the options chosen in a trial, by question: all of them or, if it fails, none.

        The same answers may be sent again, as after a lost connection.

        Raises
        ------
        UnknownToken
        OtherAnswer
        """
        with self._transaction() as tables:
            number = _number(tables, token)
            for question, option in choices.items():
                key = (number, trial, question)
                tables.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", [*key, option])
                stored = "SELECT option FROM answers WHERE participant = ? AND trial = ? AND question = ?"
                if tables.execute(stored, key).fetchone() != (option,):
                    raise OtherAnswer

    def withdraw(self, token: str) -> None:
        """Delete a participant and all answers, and overwrite their bytes. Raise UnknownToken."""
        with self._transaction() as tables:
            tables.execute("DELETE FROM participants WHERE number = ?", [_number(tables, token)])
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all changes of the block durably, or none."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def read(file: Path, study: str) -> list[Answer]:
    """Return all answers, ordered by participant, trial and question; a server may be writing.

    Raises
    ------
    UserError
        There is no such file, it cannot be read, or it belongs to another study.
    """
    if not file.is_file():
        raise UserError(f"{file.parent}: has no answers yet; start the study with: fsf study serve {file.parent}")
    with _readable(file), closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", PATIENCE, uri=True)) as tables:
        _check_study(tables, file, study)
        rows = tables.execute("SELECT * FROM answers ORDER BY participant, trial, question").fetchall()
        return [Answer(*row) for row in rows]


def _number(tables: sqlite3.Connection, token: str) -> int:
    row = tables.execute("SELECT number FROM participants WHERE token = ?", [token]).fetchone()
    if row is None:
        raise UnknownToken
    return int(row[0])


def _check_study(tables: sqlite3.Connection, file: Path, study: str) -> None:
    if tables.execute("SELECT id FROM study").fetchall() != [(study,)]:
        raise UserError(f"{file}: holds answers of another study; put back the study.json of these answers")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Convert SQLite's errors about a file to UserError."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(f"{file}: cannot be used: {error}; check its permissions, or put a copy back") from error
