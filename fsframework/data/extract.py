"""`fsf extract`: write aligned crops of the faces in images and videos, with a folder for each person.

The result is a folder with PERSON/NAME.png for every face, or webdataset shards (`fsframework.data.webdataset`). Its
faces.csv has a line for each crop, in the same order: source file, position in it, and quality.

First the faces of each file are detected, in any order and by any process, and cached beside the result. Then all of
them are assembled. An interrupted job resumes from the cache.
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
from fsframework.data.extract_assembly import HashedFile, assemble
from fsframework.data.extract_faces import ExtractOptions, FaceFinder, Record, folder_of
from fsframework.faces.visible import cut_note
from fsframework.media.image_io import media_in
from fsframework.utils.device import pick_device
from fsframework.utils.executors import SERIAL, Executor, RayExecutor, Worker
from fsframework.utils.files import check_new, making, write_text
from fsframework.utils.progress import progress
from fsframework.utils.shards import WHOLE, JobShard
from fsframework.utils.weights import digest

NOTE = ".fsf-extract.json"  # job description, in the result and in the cache


FORMAT = 2  # of the cached records; a folder with others belongs to another job


class Extracted(NamedTuple):
    """The outcome of a job: numbers of faces and people, None until all shards are done.

    `failed` is the number of unreadable files of this process's shard.
    """

    faces: int | None
    people: int | None
    failed: int


def extract(
    inputs: Sequence[Path],
    out: Path,
    options: ExtractOptions,
    detector: Detector,
    encoder: IdentityEncoder,
    device: Any = "cpu",
    shard: JobShard = WHOLE,
    engine: Executor = SERIAL,
) -> Extracted:
    """Write the faces of images, folders and videos to a new folder atomically.

    Parameters
    ----------
    inputs:
        Files and folders, at any depth.
    out:
        A folder that does not exist, or is empty. Until it is complete, the cache lies beside it.
    options:
        Which faces are extracted, and how.
    detector, encoder:
        Loaded, on the device. The encoder's embeddings assign faces to people.
    shard:
        The part of the files to process. The last shard to finish assembles the result.
    engine:
        The executor. Ray workers load the networks themselves, on the cluster's device.

    Returns
    -------
    The numbers of faces, people and unreadable files. Unreadable files are named on standard error.

    Raises
    ------
    UserError
        An input does not exist, no face was found, the folder cannot be written, or it has the cache of another job.
    """
    files = [file for path in inputs for file in _files(path)]
    if not files:
        raise UserError(f"{inputs[0]}: holds no images and no videos; choose another folder")
    job, threshold = _job(options, detector, encoder), encoder.required_match_threshold()
    parts = out.parent / f".{out.name}.parts"
    if shard != WHOLE and _is_made(out, job):
        return Extracted(None, None, 0)
    check_new(out)
    _open_parts(parts, job)
    if isinstance(engine, RayExecutor):
        networks = (
            Part("detectors", detector.name, detector.options),
            Part("identity-encoders", encoder.name, encoder.options),
        )
        make_worker: Callable[[], Worker] = partial(_remote_finder, *networks, engine.device, options, parts, job)
    else:
        make_worker = partial(FaceFinder, detector, encoder, device, options, parts)
    lists = [parts / "shards" / f"{number + 1}-of-{shard.count}.json" for number in range(shard.count)]
    own_list = lists[shard.number - 1]
    own_list.unlink(missing_ok=True)  # no process assembles the result before this shard is done
    results, failed = _find_faces(shard.of(files), make_worker, engine, parts)
    own_list.parent.mkdir(exist_ok=True)
    write_text(own_list, json.dumps([[str(file), content] for file, content in results]) + "\n")
    if not all(path.is_file() for path in lists):
        return Extracted(None, None, failed)
    nothing = f"{inputs[0]}: no face was found in {len(files)} files; try smaller --smallest or --score"
    hashed = _merged(lists, files)
    return Extracted(*_write_result(hashed, parts, out, options, threshold, job, UserError(nothing)), failed)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    return [path] if path.is_file() else media_in(path)


def _job(options: ExtractOptions, detector: Detector, encoder: IdentityEncoder) -> dict[str, Any]:
    """Return the job description: everything besides a file's content that determines its faces."""
    networks = {
        kind: [network.name, network.options.model_dump(mode="json"), digest(network)]
        for kind, network in {"detector": detector, "encoder": encoder}.items()
    }
    return {"wanted": asdict(options), "format": FORMAT, **networks}


def _text(job: dict[str, Any]) -> str:
    return json.dumps(job, indent=2, sort_keys=True) + "\n"


def _is_made(out: Path, job: dict[str, Any]) -> bool:
    """Return whether the result of the whole job exists."""
    try:
        return (out / NOTE).read_text(encoding="utf-8") == _text(job)
    except OSError:
        return False


def _open_parts(parts: Path, job: dict[str, Any]) -> None:
    """Create the cache folder, or reopen it. Raise UserError if it belongs to another job."""
    note = parts / NOTE
    try:
        if note.is_file() and note.read_text(encoding="utf-8") != _text(job):
            raise UserError(f"{parts}: belongs to another, unfinished job; remove it, or choose another -o")
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{parts}: cannot be used: {error.strerror or error}; choose another -o") from error
    write_text(note, _text(job))


def _remote_finder(
    detector: Part, encoder: Part, device: str | None, options: ExtractOptions, parts: Path, job: dict[str, Any]
) -> FaceFinder:
    """Return a worker's FaceFinder. Raise UserError if its networks differ from the job's."""
    networks, torch_device = (detector.build(), encoder.build()), pick_device(device)
    for network in networks:
        network.load()
        network.to(torch_device).eval()
    if _job(options, *networks) != job:
        raise UserError(
            f"{parts}: the worker on {socket.gethostname()} has other networks; install one version on all machines"
        )
    return FaceFinder(*networks, torch_device, options, parts)


def _find_faces(
    files: Sequence[Path], make_worker: Callable[[], Worker], executor: Executor, parts: Path
) -> tuple[list[tuple[Path, str | None]], int]:
    """Detect the faces of files and print the problems of unreadable ones.

    Returns
    -------
    Each file with its SHA-256, None if its faces are not cached, and the number of unreadable files.
    """
    results: dict[str, str | UserError] = {}
    with progress("extracting", len(files), "files") as ticker:
        for name, result in executor.run(make_worker, [str(file) for file in files]):
            results[name] = result
            ticker.advance()
    hashed: list[tuple[Path, str | None]] = []
    failed = cut = 0
    for file in files:
        result = results[str(file)]
        content, problem = None, None
        if isinstance(result, UserError):
            problem = result
        else:
            record = Record.read(folder_of(parts, result))
            content, problem, cut = result, record.problem_of(file), cut + int(record.cut)
        if problem is not None:
            click.echo(problem, err=True)
            failed += 1
        hashed.append((file, content))
    if cut:
        click.echo(f"note: {cut_note(cut)}", err=True)
    return hashed, failed


def _write_result(
    hashed: Sequence[HashedFile],
    parts: Path,
    out: Path,
    options: ExtractOptions,
    match_threshold: float,
    job: dict[str, Any],
    no_faces: UserError,
) -> tuple[int | None, int | None]:
    """Write the result and remove the cache.

    Returns
    -------
    The numbers of faces and people, None if another process wrote the result first.

    Raises
    ------
    UserError
        `no_faces` if no face was found, or the result cannot be written.
    """
    try:
        with making(out) as folder:
            faces, people = assemble(folder, hashed, parts, options, match_threshold)
            if not faces:
                shutil.rmtree(parts)
                raise no_faces
            write_text(folder / NOTE, _text(job))
    except UserError:
        if not _is_made(out, job):
            raise
        return None, None
    shutil.rmtree(parts, ignore_errors=True)
    return faces, people


def _merged(lists: Sequence[Path], files: Sequence[Path]) -> list[HashedFile]:
    """Return the files with cached faces from the lists of all shards. Raise UserError if their files differ."""
    contents: dict[str, str | None] = {}
    for path in lists:
        contents.update(json.loads(path.read_text(encoding="utf-8")))
    if contents.keys() != {str(file) for file in files}:
        raise UserError(
            f"{lists[0].parent}: the shards read different files; remove {lists[0].parents[1]} and start again"
        )
    return [(file, content) for file in files if (content := contents[str(file)]) is not None]
