"""`fsf extract`: faces in pictures and videos -> aligned crops that recipes train on, a folder for each person.

The result is a folder: PERSON/NAME.png for every face, or shards of them (`fsframework.data.webdataset`), and
faces.csv, a line for each crop, in the same order: where it came from, where it is there, and how good it is.

First the faces of each file are found, by whomever and in any order, and kept beside the result; then all of them are
put together. Work that was killed goes on with what is kept.
"""

import json
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from fsframework.core.components import Detector, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.part import Part
from fsframework.data.extract_assembly import Found, assemble
from fsframework.data.extract_faces import ExtractOptions, FaceFinder, Record, folder_of
from fsframework.media.image_io import media_in
from fsframework.utils.device import pick_device
from fsframework.utils.executors import SERIAL, Executor, RayExecutor, Worker
from fsframework.utils.files import check_new, making, write_text
from fsframework.utils.progress import progress
from fsframework.utils.shards import WHOLE, JobShard
from fsframework.utils.weights import digest

NOTE = ".fsf-extract.json"  # in the result, and in what is kept meanwhile: what the job is


class Extracted(NamedTuple):
    """How many faces were written, of how many people; None as long as other shares are not done.

    `failed` files could not be read, of those that this process did.
    """

    faces: int | None
    people: int | None
    failed: int


def extract(
    inputs: Sequence[Path],
    out: Path,
    wanted: ExtractOptions,
    detector: Detector,
    encoder: IdentityEncoder,
    device: Any = "cpu",
    shard: JobShard = WHOLE,
    engine: Executor = SERIAL,
) -> Extracted:
    """Write the faces of pictures, folders and videos to a new folder, in one step or not at all.

    Parameters
    ----------
    inputs:
        Files and folders, at any depth.
    out:
        A folder that does not exist, or is empty. Beside it lies, until it is made, what was found in each file.
    wanted:
        Which faces are taken.
    detector, encoder:
        Loaded, on the device. The encoder's embeddings say who is who.
    shard:
        Which of the files to do. Whoever ends last of all shares puts everything together.
    engine:
        Who does them. The workers of a cluster load the networks themselves, on the cluster's device.

    Returns
    -------
    What was made. Files that could not be read are named on standard error.

    Raises
    ------
    UserError
        An input does not exist, no face was found, the folder cannot be written, or another job was begun for it.
    """
    files = [file for each in inputs for file in _files(each)]
    if not files:
        raise UserError(f"{inputs[0]}: holds no pictures and no videos; choose another folder")
    job, threshold = _job(wanted, detector, encoder), encoder.required_match_threshold()
    parts = out.parent / f".{out.name}.parts"
    if shard != WHOLE and _is_made(out, job):
        return Extracted(None, None, 0)
    check_new(out)
    _open(parts, job)
    if isinstance(engine, RayExecutor):
        networks = (
            Part("detectors", detector.name, detector.options),
            Part("identity-encoders", encoder.name, encoder.options),
        )
        make: Callable[[], Worker] = partial(_away, *networks, engine.device, wanted, parts, job)
    else:
        make = partial(FaceFinder, detector, encoder, device, wanted, parts)
    lists = [parts / "shares" / f"{number + 1}-of-{shard.count}.json" for number in range(shard.count)]
    mine = lists[shard.number - 1]
    mine.unlink(missing_ok=True)  # so that nobody puts anything together before this share is done
    done, failed = _find(shard.of(files), make, engine, parts)
    mine.parent.mkdir(exist_ok=True)
    write_text(mine, json.dumps([[str(file), content] for file, content in done]) + "\n")
    if not all(each.is_file() for each in lists):
        return Extracted(None, None, failed)
    wrong = f"{inputs[0]}: no face was found in {len(files)} files; try smaller --smallest or --score"
    found = _merged(lists, files)
    return Extracted(*_put_together(found, parts, out, wanted, threshold, job, UserError(wrong)), failed)


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise UserError(f"{place}: there is no such file or folder")
    return [place] if place.is_file() else media_in(place)


def _job(wanted: ExtractOptions, detector: Detector, encoder: IdentityEncoder) -> dict[str, Any]:
    """What the faces of a file depend on, besides its content."""
    networks = {
        kind: [network.name, network.options.model_dump(mode="json"), digest(network)]
        for kind, network in {"detector": detector, "encoder": encoder}.items()
    }
    return {"wanted": asdict(wanted), **networks}


def _text(job: dict[str, Any]) -> str:
    return json.dumps(job, indent=2, sort_keys=True) + "\n"


def _is_made(out: Path, job: dict[str, Any]) -> bool:
    """Whether the whole job is done."""
    try:
        return (out / NOTE).read_text(encoding="utf-8") == _text(job)
    except OSError:
        return False


def _open(parts: Path, job: dict[str, Any]) -> None:
    """Make the folder of what is kept, or go on in it. Raises UserError if it is that of another job."""
    note = parts / NOTE
    try:
        if note.is_file() and note.read_text(encoding="utf-8") != _text(job):
            raise UserError(f"{parts}: belongs to another job, which was not finished; remove it, or choose another -o")
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{parts}: cannot be used: {error.strerror or error}; choose another -o") from error
    write_text(note, _text(job))


def _away(
    detector: Part, encoder: Part, device: str | None, wanted: ExtractOptions, parts: Path, job: dict[str, Any]
) -> FaceFinder:
    """What a worker in another process does. Raises UserError if it would do something else there."""
    networks, place = (detector.build(), encoder.build()), pick_device(device)
    for network in networks:
        network.load()
        network.to(place).eval()
    if _job(wanted, *networks) != job:
        raise UserError(
            f"{parts}: the worker on {socket.gethostname()} has other networks; install the same everywhere"
        )
    return FaceFinder(*networks, place, wanted, parts)


def _find(
    files: Sequence[Path], make: Callable[[], Worker], engine: Executor, parts: Path
) -> tuple[list[tuple[Path, str | None]], int]:
    """Find the faces of files: each with its SHA-256 if they are kept, and how many files are broken, which is said."""
    said: dict[str, str | UserError] = {}
    with progress("extracting", len(files), "files") as ticker:
        for name, what in engine.run(make, [str(file) for file in files]):
            said[name] = what
            ticker.advance()
    found: list[tuple[Path, str | None]] = []
    failed = 0
    for file in files:
        what = said[str(file)]
        kept = what if isinstance(what, str) else None
        problem = what if isinstance(what, UserError) else Record.read(folder_of(parts, what)).problem_of(file)
        if problem is not None:
            click.echo(problem, err=True)
            failed += 1
        found.append((file, kept))
    return found, failed


def _put_together(
    found: Sequence[Found],
    parts: Path,
    out: Path,
    wanted: ExtractOptions,
    match_threshold: float,
    job: dict[str, Any],
    nothing: UserError,
) -> tuple[int | None, int | None]:
    """Make the result, and remove what was kept for it: how many faces and people; None if another was quicker.

    Raises `nothing` if there is no face.
    """
    try:
        with making(out) as folder:
            faces, people = assemble(folder, found, parts, wanted, match_threshold)
            if not faces:
                shutil.rmtree(parts)
                raise nothing
            write_text(folder / NOTE, _text(job))
    except UserError:
        if not _is_made(out, job):
            raise
        return None, None
    shutil.rmtree(parts, ignore_errors=True)
    return faces, people


def _merged(lists: Sequence[Path], files: Sequence[Path]) -> list[Found]:
    """The files whose faces are kept, in order, from the lists of all shares. Raises UserError if they saw others."""
    contents: dict[str, str | None] = {}
    for each in lists:
        contents.update(json.loads(each.read_text(encoding="utf-8")))
    if contents.keys() != {str(file) for file in files}:
        raise UserError(f"{lists[0].parent}: the shares saw other files; remove {lists[0].parents[1]} and begin again")
    return [(file, content) for file in files if (content := contents[str(file)]) is not None]
