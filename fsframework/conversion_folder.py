"""A folder of pictures and videos with their faces swapped, file by file; one that fails does not stop the rest.

Results appear whole or not at all, so that a job that was killed goes on where it was: files that are there are not
made again. A note in the results' folder says what the job was, so that results of two jobs are never mixed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click

from fsframework.conversion import DEFAULT_MARKING, Converter, check_output
from fsframework.conversion_video import swap_video
from fsframework.conversion_who import Who
from fsframework.errors import UserError
from fsframework.files import write_text
from fsframework.images import media_in, read_image, writable_format
from fsframework.progress import progress
from fsframework.provenance import Marking, write_swap
from fsframework.video import is_video

NOTE = ".fsf-swap.json"  # in a results' folder: what the job is


@dataclass(frozen=True)
class Shard:
    """One of several equal shares of a list, for as many processes or jobs of an array."""

    number: int = 1  # from 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """`I/N`, such as 3/8. Raises UserError for anything else."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UserError(f"--shard {text}: is no share; write I/N with I from 1 to N, such as 3/8")
        return cls(int(number), int(count))

    def of(self, items: list[Path]) -> list[Path]:
        """Every `count`th item, so that long and short ones are spread; nothing is in two shares."""
        return items[self.number - 1 :: self.count]


WHOLE = Shard()


def swap_folder(
    converter: Converter,
    who: Who,
    folder: Path,
    out: Path,
    job: dict[str, Any],
    marking: Marking = DEFAULT_MARKING,
    shard: Shard = WHOLE,
) -> int:
    """Swap the faces of all pictures and videos in a folder, at any depth, into files of the same names in another.

    Parameters
    ----------
    converter, who, job, marking:
        As for `swap_video`.
    folder:
        What is read.
    out:
        Where results go; it is made. Results of the same job that are there already are kept.
    shard:
        Which of the files to do. Other processes may do the others at the same time, into the same folder.

    Returns
    -------
    How many files failed. What is wrong with each is printed on standard error, at the end.

    Raises
    ------
    UserError
        The folder holds no such files, or `out` lies inside it or holds the results of another job.
    """
    files = media_in(folder)
    if not files:
        raise UserError(f"{folder}: holds no pictures and no videos; choose another folder")
    files = shard.of(files)
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: lies inside {folder}, which is read; choose another folder")
    _open(out, job)
    problems: list[UserError] = []
    results = [(file, place_of(file, folder, out)) for file in files]
    done = sum(result.is_file() for _, result in results)
    with progress("swapping", len(files), "files", done) as ticker:
        for file, result in results:
            if result.is_file():
                continue
            try:
                result.parent.mkdir(parents=True, exist_ok=True)
                swap_one(converter, who, file, result, job, marking)
            except UserError as error:
                problems.append(error)
            except OSError as error:
                problems.append(UserError(f"{result}: cannot be written: {error.strerror or error}"))
            ticker.advance()
    for problem in problems:
        click.echo(problem, err=True)
    before = f", {done} of them before" if done else ""
    click.echo(f"{len(files) - len(problems)} of {len(files)} files are in {out}{before}")
    return len(problems)


def swap_one(
    converter: Converter, who: Who, target: Path, out: Path, job: dict[str, Any], marking: Marking = DEFAULT_MARKING
) -> None:
    """Swap the faces of one picture or video; parameters and errors as of `swap_video`."""
    if is_video(target):
        swap_video(converter, who, target, out, job, marking)
        return
    check_output(out, target)
    frame = read_image(target)
    made = converter.paint(frame, who.of_faces(converter, frame, converter.find(frame, str(target)), str(target)))
    write_swap(out, made, converter.origin(marking), marking, target, who.source_paths)


def place_of(file: Path, folder: Path, out: Path) -> Path:
    """Where a file's result goes: the same place in `out`, with another suffix behind if its own is not written."""
    place = out / file.relative_to(folder)
    if is_video(file):
        return place if place.suffix.lower() == ".mp4" else place.with_name(f"{place.name}.mp4")
    try:
        writable_format(place)
    except UserError:
        return place.with_name(f"{place.name}.png")
    return place


def _is_note(file: Path) -> bool:
    """Whether a file is a note, or one that another process writes just now."""
    return file.name == NOTE or file.name.startswith(f".{NOTE}.")


def _open(out: Path, job: dict[str, Any]) -> None:
    """Make the results' folder, or go on in it. Raises UserError if it holds anything but results of this job."""
    text = json.dumps(job, indent=2, sort_keys=True) + "\n"
    note = out / NOTE
    try:
        if note.is_file() and note.read_text(encoding="utf-8") == text:
            return
        if out.exists() and (not out.is_dir() or any(not _is_note(file) for file in out.iterdir())):
            raise UserError(f"{out}: holds something else, or results of another job; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be used: {error.strerror or error}; choose another folder") from error
    write_text(note, text)
