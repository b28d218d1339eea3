"""Memory-mapped index of a face collection: names and people of any number of faces.

An index is a folder with the names, the people, each face's person, and the hashes that decide the split. Ten million
faces take about 600 MB on disk; only the used part is in memory.
"""

import hashlib
import json
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from fsf_data.texts import Texts, TextsWriter, mapped


def hash_of(name: str) -> int:
    """Return the first 64 bits of a name's SHA-256: uniform and stable across versions."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")


class FaceIndex:
    """Index of faces in a folder. Its pickle holds the path only.

    Raises
    ------
    OSError, EOFError, ValueError, KeyError, TypeError
        The folder holds no complete index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = Texts(folder, "names")
        self.who = Texts(folder, "people")  # each person once, in order of first appearance
        self.person, self.name_hash, self.who_hash = (
            mapped(folder, name) for name in ("person", "name_hash", "who_hash")
        )  # (N,) int32 index in `who`, -1 unknown; (N,) uint64; (people,) uint64
        facts = json.loads((folder / "faces.json").read_text(encoding="utf-8"))
        self.notes: dict[str, str] = facts["notes"]  # name -> remark on the face
        self.skipped: list[tuple[str, str]] = [(name, reason) for name, reason in facts["skipped"]]
        if not (len(self.names) == len(self.person) == len(self.name_hash) and len(self.who) == len(self.who_hash)):
            raise ValueError(f"{folder}: its files do not belong together")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self.names)

    def person_of(self, index: int) -> str | None:
        """Return the person of the face at `index`; None if unknown."""
        number = int(self.person[index])
        return None if number < 0 else self.who[number]

    def held_out(self, share: float, by_name: bool = False) -> np.ndarray:
        """Return a mask (N,) bool of the test faces: a fraction of the people, and of the faces of unknown people.

        With `by_name`, it is a fraction of the faces, independent of the person. Hashes decide, so that adding people
        does not change the split of others.
        """
        hashes = self.name_hash
        if not by_name and len(self.who):
            hashes = np.where(self.person < 0, self.name_hash, self.who_hash[self.person])
        bound = math.ceil(share * 2**64)
        return np.asarray(hashes <= np.uint64(bound - 1)) if bound else np.zeros(len(self), bool)


class FaceIndexWriter:
    """Writer of a `FaceIndex`, face by face, as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names, self._who = TextsWriter(folder, "names"), TextsWriter(folder, "people")
        self._numbers: dict[str, int] = {}
        self._person, self.name_hash, self._who_hash = array("i"), array("Q"), array("Q")
        self._notes: dict[str, str] = {}
        self.skipped: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __len__(self) -> int:
        return len(self._person)

    def add(self, name: str, person: str | None, note: str = "") -> None:
        """Append a face."""
        if person is not None and person not in self._numbers:
            self._numbers[person] = len(self._numbers)
            self._who.add(person)
            self._who_hash.append(hash_of(person))
        self._names.add(name)
        self._person.append(-1 if person is None else self._numbers[person])
        self.name_hash.append(hash_of(name))
        if note:
            self._notes[name] = note

    def skip(self, name: str, reason: str) -> None:
        """Record an image that is not in the index, and the reason."""
        self.skipped.append((name, reason))

    def _close(self) -> None:
        self._names.close()
        self._who.close()
        for name, values, kind in (
            ("person", self._person, np.int32),
            ("name_hash", self.name_hash, np.uint64),
            ("who_hash", self._who_hash, np.uint64),
        ):
            np.save(self._folder / f"{name}.npy", np.array(values, kind))
        facts = {"notes": self._notes, "skipped": self.skipped}
        (self._folder / "faces.json").write_text(json.dumps(facts, indent=0), encoding="utf-8")


def person_numbers(parts: Sequence[tuple[FaceIndex, np.ndarray]]) -> np.ndarray:
    """Return the person of every selected face (n,) int64, numbered by first appearance; -1 if unknown.

    Each part is an index and the selected indices (k,) in it. A person may be in several parts.
    """
    numbers: dict[str, int] = {}
    result = []
    for index, indices in parts:
        persons = index.person[indices]
        distinct, first = np.unique(persons, return_index=True)
        table = np.full(len(index.who) + 1, -1, np.int64)  # the last entry is for -1
        for person in distinct[np.argsort(first)].tolist():
            if person >= 0:
                table[person] = numbers.setdefault(index.who[person], len(numbers))
        result.append(table[persons])
    return np.concatenate(result) if result else np.zeros(0, np.int64)
