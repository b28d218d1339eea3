"""Many pictures at once: a CSV file that says whose face goes where, and a folder for what comes out."""

import os
from csv import DictReader
from csv import Error as CsvError
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import click

from fsframework.core.errors import UserError
from fsframework.faces.select import check_face
from fsframework.inference.face_swapper import DEFAULT_PROVENANCE, FaceSwapper
from fsframework.media.image_io import writable_format
from fsframework.provenance.options import ProvenanceOptions
from fsframework.utils.progress import progress

COLUMNS = ("source", "target", "name")  # of a list of pictures to swap


class Job(NamedTuple):
    """One picture to make, and the line of the list that asks for it."""

    line: int
    source: Path
    target: Path
    out: Path


def read_rows(table: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file: number, and source, target, name, which the file may hold in any order.

    Raises
    ------
    UserError
        The file cannot be read, lacks a column or holds no line.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UserError(f"{table}: is no text; give a CSV file")
        reader = DictReader(StringIO(text, newline=""), skipinitialspace=True)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{table}: line 1: no column {', '.join(missing)}; begin with {','.join(COLUMNS)}")
        rows = [(reader.line_num, [row[column] or "" for column in COLUMNS]) for row in reader]
    except (OSError, UnicodeDecodeError, CsvError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{table}: cannot be read: {why}; give a CSV file in UTF-8") from error
    if not rows:
        raise UserError(f"{table}: holds no lines; add lines like a.jpg,b.jpg,c.png")
    return rows


def read_jobs(table: Path, folder: Path) -> tuple[list[Job], list[tuple[int, UserError]]]:
    """The jobs of a CSV file, and beside them the lines that cannot be used: number, and what is wrong.

    Errors are those of `read_rows`.
    """
    rows = read_rows(table)
    jobs: list[Job] = []
    problems: list[tuple[int, UserError]] = []
    taken = {os.path.realpath(table.parent / path): "is also an input" for _, row in rows for path in row[:2]}
    for line, (source, target, name) in rows:
        try:
            if not (source and target and name):
                raise UserError("source, target or name is empty; fill it in")
            out = place_inside(folder, name)
            if reason := taken.get(os.path.realpath(out)):
                raise UserError(f"{out}: {reason}; choose another name")
            taken[os.path.realpath(out)] = "is made by an earlier line"
            jobs.append(Job(line, table.parent / source, table.parent / target, out))
        except UserError as error:
            problems.append((line, error))
    return jobs, problems


def place_inside(folder: Path, name: str) -> Path:
    """Where a picture of that name goes; a name without suffix gets .png.

    Raises UserError if the name leads out of the folder, or has a suffix that is not written.
    """
    path = Path(name)
    inside = path.name and not path.is_absolute() and ".." not in path.parts
    # Resolved, because the folder may hold a link that leads elsewhere.
    if not inside or not Path(os.path.realpath(folder / path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(f"{name!r}: this name does not stay inside the output folder; write a name like c.png")
    path = path if path.suffix else path.with_suffix(".png")
    writable_format(path)
    return folder / path


def swap_pairs(
    converter: FaceSwapper,
    csv: Path,
    folder: Path,
    face: str = "largest",
    marking: ProvenanceOptions = DEFAULT_PROVENANCE,
) -> int:
    """Swap many pictures; one that fails does not stop the rest.

    Parameters
    ----------
    converter:
        Does the work.
    csv:
        A CSV file with the columns `source`, `target` (paths, from the folder of the CSV file) and `name`, what the
        result is called inside `folder`; without a suffix it is a .png.
    folder:
        Where results go; it is made.
    face:
        Which faces of each target (see `FaceSwapper`).
    marking:
        How results are marked.

    Returns
    -------
    How many lines failed. What is wrong with each is printed on standard error, at the end.

    Raises
    ------
    UserError
        The CSV file as a whole cannot be used, `face` says no face, or nothing can be signed.
    """
    check_face(face)
    marking.check()
    jobs, problems = read_jobs(csv, folder)
    # In order of their sources, so that remembering one is enough to read and embed each once.
    jobs.sort(key=lambda job: job.source)
    read_source = lru_cache(maxsize=1)(converter.read_source)
    with progress("swapping", len(jobs), "pictures") as ticker:
        for job in jobs:
            try:
                _make_folder(job.out.parent)
                converter.swap_file(read_source(job.source), job.target, job.out, face, marking)
            except UserError as error:
                problems.append((job.line, error))
            ticker.advance()
    for line, problem in sorted(problems, key=lambda each: each[0]):
        click.echo(f"{csv}: line {line}: {problem}", err=True)
    return len(problems)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror or error}; choose another folder") from error
