"""A folder of pictures and videos with their faces swapped, file by file; one that fails does not stop the rest.

Results appear whole or not at all, so that a job that was killed goes on where it was: results whose targets are still
the same are not made again. To know that, targets are read and hashed again. A note in the results' folder says what
the job was, so that results of two jobs are never mixed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fsframework.core.errors import UserError
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import DEFAULT_PROVENANCE, FaceSwapper, check_output
from fsframework.inference.video import swap_video
from fsframework.media.image_io import media_in, read_image, writable_format
from fsframework.media.video_io import is_video
from fsframework.provenance.options import ProvenanceOptions, write_swap
from fsframework.utils.executors import SERIAL, Executor, Worker
from fsframework.utils.files import sha256_of, write_text
from fsframework.utils.progress import progress
from fsframework.utils.shards import WHOLE, JobShard

NOTE = ".fsf-swap.json"  # in a results' folder: what the job is
DONE = ".fsf-done"  # beside it: a marker for each result
THERE = "there"  # what is said of a file that was done before


@dataclass(frozen=True, eq=False)
class FolderSwapper:
    """Swaps files of a folder, each once, however many processes do so: what works for `fsf swap`.

    Beside a result lies a marker with the SHA-256 of the target that it was made of, and it is done as long as both
    are there and the target is the same.
    """

    converter: FaceSwapper
    who: FaceAssignment
    folder: Path
    out: Path
    job: dict[str, Any]
    marking: ProvenanceOptions = DEFAULT_PROVENANCE

    def __call__(self, name: str) -> str:
        """Swap a file, by its name in the folder, unless it is done, which is then said. Raises UserError."""
        file = self.folder / name
        result = place_of(file, self.folder, self.out)
        marker = marker_of(result, self.out)
        try:
            content = sha256_of(file)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}; check the path") from error
        try:
            if result.is_file() and marker.is_file() and marker.read_text(encoding="utf-8").strip() == content:
                return THERE
            for place in (result, marker):
                place.parent.mkdir(parents=True, exist_ok=True)
            swap_one(self.converter, self.who, file, result, self.job, self.marking)
        except OSError as error:
            raise UserError(f"{result}: cannot be written: {error.strerror or error}") from error
        write_text(marker, f"{content}\n")
        return ""


def swap_folder(
    make: Callable[[], Worker],
    folder: Path,
    out: Path,
    job: dict[str, Any],
    shard: JobShard = WHOLE,
    engine: Executor = SERIAL,
) -> int:
    """Swap the faces of all pictures and videos in a folder, at any depth, into files of the same names in another.

    Parameters
    ----------
    make:
        Builds a FolderSwapper of this folder and this job.
    folder:
        What is read.
    out:
        Where results go; it is made. Results of the same job that are there already are kept.
    job:
        What results depend on, besides their targets.
    shard:
        Which of the files to do. Other processes may do the others at the same time, into the same folder.
    engine:
        Who does them.

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
    if out.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{out}: lies inside {folder}, which is read; choose another folder")
    _open(out, job)
    names = [str(file.relative_to(folder)) for file in shard.of(files)]
    marked = {name for name in names if marker_of(place_of(folder / name, folder, out), out).is_file()}
    problems: dict[str, UserError] = {}
    done = 0
    with progress("swapping", len(names), "files") as ticker:
        for name, said in engine.run(make, names):
            if isinstance(said, UserError):
                problems[name] = said
            elif said == THERE and name in marked:  # and not by a worker that was killed meanwhile
                done += 1
            ticker.advance()
    for name in sorted(problems):
        click.echo(problems[name], err=True)
    before = f", {done} of them before" if done else ""
    click.echo(f"{len(names) - len(problems)} of {len(names)} files are in {out}{before}")
    return len(problems)


def swap_one(
    converter: FaceSwapper,
    who: FaceAssignment,
    target: Path,
    out: Path,
    job: dict[str, Any],
    marking: ProvenanceOptions = DEFAULT_PROVENANCE,
) -> None:
    """Swap the faces of one picture or video; parameters and errors as of `swap_video`."""
    if is_video(target):
        swap_video(converter, who, target, out, job, marking)
        return
    check_output(out, target)
    frame = read_image(target)
    made = converter.swap_faces(frame, who.of_faces(converter, frame, converter.find(frame, str(target)), str(target)))
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


def marker_of(result: Path, out: Path) -> Path:
    """Where it stands what a result in `out` was made of."""
    place = out / DONE / result.relative_to(out)
    return place.with_name(f"{place.name}.sha256")


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
