"""What `fsf swap` is asked for: a picture, a video or a folder, with one source or one for each person."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fsframework.core.errors import UserError
from fsframework.faces.select import largest
from fsframework.inference.assignment import FaceAssignment, IdentityMapping
from fsframework.inference.face_swapper import DEFAULT_PROVENANCE, FaceSwapper, check_output
from fsframework.inference.folder import FolderSwapper, swap_folder, swap_one
from fsframework.inference.video import check_video_output, preview
from fsframework.media.image_io import read_image
from fsframework.media.video_io import is_video
from fsframework.ops.precision import Precision
from fsframework.provenance.options import ProvenanceOptions
from fsframework.utils.executors import SERIAL, Executor, RayExecutor
from fsframework.utils.files import sha256_of
from fsframework.utils.shards import WHOLE, JobShard


def check_places(
    target: Path,
    out: Path,
    inputs: Sequence[str | Path],
    frames: int | None,
    marking: ProvenanceOptions = DEFAULT_PROVENANCE,
) -> None:
    """Raise UserError, before networks are loaded, if the target or the result's place cannot be right."""
    files = [Path(part) for each in inputs for part in (named(each) if isinstance(each, str) else [each])]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: cannot be read: there is no such file")
    if frames is not None and not is_video(target):
        raise UserError(f"{target}: --preview shows frames of a video, and this is none; leave it out")
    if not target.is_dir():
        if is_video(target) and frames is None:
            check_video_output(out, marking, target, *files)
        else:
            check_output(out, target, *files)


def named(text: str) -> tuple[str, str]:
    """The two files of a `--who FILE=SOURCE`. Raises UserError if it has another form."""
    reference, equals, source = text.partition("=")
    if not (reference and equals and source):
        raise UserError(f"--who {text}: write FILE=SOURCE, a picture of the person and one of who takes the place")
    return reference, source


def swap_places(
    converter: FaceSwapper,
    target: Path,
    out: Path,
    sources: Sequence[Path],
    face: str,
    people: Sequence[str],
    frames: int | None = None,
    marking: ProvenanceOptions = DEFAULT_PROVENANCE,
    shard: JobShard = WHOLE,
    engine: Executor = SERIAL,
) -> int:
    """Swap what `fsf swap` names.

    Parameters
    ----------
    converter:
        Does the work.
    target, out:
        Picture, video or folder.
    sources, face:
        One source for the faces that a rule chooses; no source where there are people.
    people:
        "FILE=SOURCE" for each.
    frames:
        Show so many of a video's frames in a picture instead.
    marking:
        How results are marked.
    shard:
        Which of a folder's files to do.
    engine:
        Who does them. The workers of a cluster load the converter's model themselves, on the cluster's device.

    Returns
    -------
    How many files failed.

    Raises
    ------
    UserError
        Something cannot be read or written, or shows no such face.
    """
    who = _who(converter, sources, face, people)
    job = _job(converter, sources, face, people, marking)
    if frames is not None:
        preview(converter, who, target, out, frames, marking)
    elif target.is_dir():
        make = partial(FolderSwapper, converter, who, target, out, job, marking)
        if isinstance(engine, RayExecutor):
            if converter.loaded_from is None:
                raise ValueError("a converter of parts cannot be made again by workers")
            precision: Precision = "bf16" if converter.bf16 else "fp32"
            load = partial(FaceSwapper, converter.loaded_from, engine.device, converter.paster.pasting, precision)
            make = partial(_away, load, sources, face, people, marking, target, out, job)
        return swap_folder(make, target, out, job, shard, engine)
    else:
        swap_one(converter, who, target, out, job, marking)
    return 0


def _who(converter: FaceSwapper, sources: Sequence[Path], face: str, people: Sequence[str]) -> FaceAssignment:
    if sources:
        return FaceAssignment(face, converter.read_source(sources[0]))
    if not converter.swapper.identity.metric:
        raise UserError("--who: this model's identity encoder does not compare faces; choose faces by --face")
    threshold = converter.swapper.identity.required_match_threshold()
    made = []
    for text in people:
        reference, source = map(Path, named(text))
        made.append(IdentityMapping(_reference(converter, reference), converter.read_source(source), threshold))
    return FaceAssignment(people=made)


def _away(
    load: Callable[[], FaceSwapper],
    sources: Sequence[Path],
    face: str,
    people: Sequence[str],
    marking: ProvenanceOptions,
    folder: Path,
    out: Path,
    job: dict[str, Any],
) -> FolderSwapper:
    """What a worker in another process does. Raises UserError if it would do something else there."""
    converter = load()
    if _job(converter, sources, face, people, marking) != job:
        here = socket.gethostname()
        raise UserError(f"{folder}: the worker on {here} has another model or sources; use a shared file system")
    return FolderSwapper(converter, _who(converter, sources, face, people), folder, out, job, marking)


def _reference(converter: FaceSwapper, file: Path) -> Any:
    """The embedding (1, D) of the largest face of a picture."""
    frame = read_image(file)
    return converter.embed(frame, [largest(converter.find(frame, str(file)))])


def _job(
    converter: FaceSwapper, sources: Sequence[Path], face: str, people: Sequence[str], marking: ProvenanceOptions
) -> dict[str, Any]:
    """What results depend on, besides their targets."""
    return {
        "swapper": converter.weights_sha256,
        "marking": asdict(marking),
        "pasting": [asdict(converter.paster.pasting), converter.paster.sha256()],
        "bf16": converter.bf16,
        "sources": [sha256_of(source) for source in sources],
        "face": face,
        "people": [[sha256_of(Path(file)) for file in named(text)] for text in people],
    }
