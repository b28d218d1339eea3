"""The jobs of `fsf swap`: one for each target of a path, a folder or a CSV file of pairs.

No network is loaded here, so that wrong options, outputs and lines are reported without that delay.
"""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Literal

from fsframework.core.errors import UserError
from fsframework.faces.select import check_face
from fsframework.media import animation_io, video_io
from fsframework.media.animation_io import is_animation, is_film
from fsframework.media.image_io import media_in, other_files_in, writable_format
from fsframework.media.video_encoder import VideoOptions
from fsframework.media.video_io import is_video
from fsframework.provenance.options import ProvenanceOptions
from fsframework.utils.files import check_not_input, check_place

COLUMNS = ("source", "target", "name")  # of a list of pairs


@dataclass(frozen=True)
class AssignmentFiles:
    """The files of a `FaceAssignment`: one source for the faces that `face` selects, or one per reference person.

    Raises UserError if `face` selects nothing.
    """

    face: str = "largest"
    source: Path | None = None
    mappings: tuple[tuple[Path, Path], ...] = ()  # (reference image, source image) for each person

    def __post_init__(self) -> None:
        check_face(self.face)

    @property
    def files(self) -> list[Path]:
        """Return all files, the source or those of the mappings."""
        return [file for pair in self.mappings for file in pair] if self.source is None else [self.source]


@dataclass(frozen=True)
class SwapOptions:
    """Options of all jobs of a list.

    Parameters
    ----------
    provenance:
        How results are marked.
    preview:
        The number of frames of a video preview; None: swap the whole video.
    overwrite:
        Whether the result of a single target may replace a file.
    summary:
        Whether the result of a single target is printed: faces, seconds and file.
    video:
        How videos are encoded.
    private_metadata:
        Keep the place, serial numbers, the owner's name and maker notes of the target's metadata.
    """

    provenance: ProvenanceOptions = field(default_factory=ProvenanceOptions)
    preview: int | None = None
    overwrite: bool = True
    summary: bool = False
    video: VideoOptions = field(default_factory=VideoOptions)
    private_metadata: bool = False


@dataclass(frozen=True)
class SwapJob:
    """A target and its output path. It holds no tensors, so it can be built without networks and sent to workers."""

    target: Path
    out: Path
    assignment: AssignmentFiles
    options: SwapOptions = field(default_factory=SwapOptions)

    @property
    def kind(self) -> Literal["image", "video", "preview"]:
        """Return the kind of the output."""
        if self.options.preview is not None:
            return "preview"
        return "video" if is_video(self.target) or self.is_moving_picture else "image"

    @cached_property
    def is_moving_picture(self) -> bool:
        """Return whether the target is a moving picture; the file is opened once."""
        return is_animation(self.target)

    def check(self) -> None:
        """Raise UserError if the output has an unsupported format, cannot be signed, or would replace an input."""
        _check_suffix(self.out, self.kind == "video", self.is_moving_picture)
        if self.kind == "video":
            self.options.provenance.check(self.out)
        check_not_input(self.out, self.target, *self.assignment.files)


@dataclass(frozen=True)
class JobList:
    """Jobs by name, in order of execution, with an error in place of each invalid job.

    Parameters
    ----------
    items:
        Jobs or errors. A name is the target's path in its folder, or the line number in the CSV file.
    out:
        The folder of results and their markers; None for a single target.
    shared:
        The assignment that all jobs need; None if each line of a list has its own.
    table:
        The CSV file; None otherwise. Without one, `out` must hold nothing but results of this job list.
    omitted:
        The names of a folder's files that are no images and no videos by their suffixes.
    """

    items: Mapping[str, SwapJob | UserError]
    out: Path | None = None
    shared: AssignmentFiles | None = None
    table: Path | None = None
    omitted: tuple[str, ...] = ()

    @property
    def is_one_picture(self) -> bool:
        """Return whether there is a single target, and the result is a picture."""
        return self.out is None and all(isinstance(job, SwapJob) and job.kind != "video" for job in self.items.values())


def _check_suffix(out: Path, video: bool, is_moving_picture: bool = False) -> None:
    """Raise UserError unless the suffix is a supported format of videos and moving pictures, or else of images."""
    if not video:
        writable_format(out)
        return
    written = (*(animation_io.WRITTEN if is_moving_picture else ()), *video_io.WRITTEN)
    if out.suffix.lower() not in written:
        kind = "moving pictures" if is_moving_picture else "videos"
        raise UserError(f"{out}: {kind} are written as {', '.join(written)}; use one of these suffixes")


def _check_inputs(assignment: AssignmentFiles, options: SwapOptions) -> None:
    """Raise UserError if signing or the encoder is not possible, or a file of the assignment is missing."""
    options.provenance.check()
    options.video.check()
    for file in assignment.files:
        if file.is_dir():
            pictures = [each for each in media_in(file) if not is_film(each)]
            remedy = f"give one picture, such as {pictures[0]}" if pictures else "give a picture"
            raise UserError(f"{file}: is a folder; {remedy}, or many sources by --pairs")
        if not file.is_file():
            raise UserError(f"{file}: cannot be read: there is no such file; check the path")


def parse_mapping(text: str) -> tuple[Path, Path]:
    """Return the two files of `--map REFERENCE=SOURCE`. Raise UserError if the text has another form."""
    reference, equals, source = text.partition("=")
    if not (reference and equals and source):
        advice = "write REFERENCE=SOURCE, pictures of the person to replace and of the new face"
        raise UserError(f"--map {text}: is no pair of files; {advice}")
    return Path(reference), Path(source)


def target_jobs(target: Path, out: Path, assignment: AssignmentFiles, options: SwapOptions) -> JobList:
    """Return the job of one image or video, or the jobs of all images and videos of a folder, at any depth.

    Raises
    ------
    UserError
        A source is missing, signing or the encoder is not possible, or `out` cannot be written, or exists and must not
        be overwritten. The folder has no such files, or `out` is inside it.
    """
    _check_inputs(assignment, options)
    if not target.exists():
        raise UserError(f"{target}: cannot be read: there is no such file; check the path")
    if options.preview is not None and not is_film(target):
        raise UserError(f"{target}: --preview needs a video, and this is none; omit it")
    if options.video != VideoOptions() and not target.is_dir() and (not is_video(target) or options.preview):
        raise UserError(f"{out}: --encoder and --quality are for videos, and this is a picture; omit them")
    if not target.is_dir():
        job = SwapJob(target, out, assignment, options)
        job.check()
        check_place(out)
        if not options.overwrite and out.exists():
            raise UserError(f"{out}: exists; choose another name, or replace it with --overwrite")
        return JobList({str(target): job}, shared=assignment)
    files = media_in(target)
    if not files:
        raise UserError(f"{target}: has no pictures and no videos; choose another folder")
    if out.resolve().is_relative_to(target.resolve()):
        raise UserError(f"{out}: is inside the input folder {target}; choose another folder")
    jobs = {str(file.relative_to(target)): file for file in files}
    items = {
        name: _checked(SwapJob(file, result_path(name, out, is_animation(file)), assignment, options))
        for name, file in jobs.items()
    }
    omitted = tuple(str(file.relative_to(target)) for file in other_files_in(target))
    return JobList(items, out, assignment, omitted=omitted)


def result_path(name: str, out: Path, is_moving_picture: bool = False) -> Path:
    """Return the output path in `out` for a file of a folder, with a suffix appended if its own is not supported.

    That is .mp4 for videos, .webp for moving pictures and .png for other images.
    """
    path = out / name
    if is_moving_picture:
        supported = path.suffix.lower() in animation_io.WRITTEN
        return path if supported else path.with_name(f"{path.name}{animation_io.OTHER}")
    if is_video(path):
        return path if path.suffix.lower() == ".mp4" else path.with_name(f"{path.name}.mp4")
    try:
        writable_format(path)
    except UserError:
        return path.with_name(f"{path.name}.png")
    return path


def _checked(job: SwapJob) -> SwapJob | UserError:
    try:
        job.check()
    except UserError as error:
        return error
    return job


def pairs_jobs(table: Path, out: Path, assignment: AssignmentFiles, options: SwapOptions) -> JobList:
    """Return a job for each line of a CSV file.

    Parameters
    ----------
    table:
        A CSV file with the columns `source`, `target` (paths relative to its folder) and `name`, the result's name
        in `out`. A name without suffix gets .png, .mp4 if the target is a video, or that of a moving picture.
    out:
        The folder of results, which is created.
    assignment:
        The faces that a line's source replaces, and the mappings for lines without a source. With mappings, the
        column `source` is optional.
    options:
        The options of all jobs.

    Raises
    ------
    UserError
        The file cannot be read, lacks a column or has no lines, an image of the mappings is missing, or signing is
        not possible.
    """
    _check_inputs(assignment, options)
    required = COLUMNS[1:] if assignment.mappings else COLUMNS
    rows = _read_rows(table, required)
    folder = table.parent
    inputs = [folder / path for _, row in rows for path in (row["source"], row["target"]) if path] + assignment.files
    taken = {os.path.realpath(path): "is also an input" for path in inputs}
    items: dict[str, SwapJob | UserError] = {}
    for line, row in rows:
        try:
            if not all(row[column] for column in required):
                raise UserError(f"{', '.join(required[:-1])} or {required[-1]} is empty; fill it in")
            target = folder / row["target"]
            files = AssignmentFiles(assignment.face, folder / row["source"]) if row["source"] else assignment
            path = _path_inside(out, row["name"], target)
            if reason := taken.get(os.path.realpath(path)):
                raise UserError(f"{path}: {reason}; choose another name")
            job = SwapJob(target, path, files, options)
            job.check()
            taken[os.path.realpath(path)] = "is the output of an earlier line"
            items[str(line)] = job
        except UserError as error:
            items[str(line)] = error
    # Lines are grouped by source, so that each source is read once.
    ordered = dict(sorted(items.items(), key=lambda item: _source_of(item[1])))
    return JobList(ordered, out, assignment if assignment.mappings else None, table)


def _source_of(item: SwapJob | UserError) -> str:
    return str(item.assignment.source or "") if isinstance(item, SwapJob) else ""


def _read_rows(table: Path, required: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Return the number and the columns of each line. Raise UserError as `pairs_jobs` does."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UserError(f"{table}: is not a text file; give a CSV file")
        reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True)
        missing = [column for column in required if column not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{table}: line 1: no column {', '.join(missing)}; begin with {','.join(COLUMNS)}")
        rows = [(reader.line_num, {column: row.get(column) or "" for column in COLUMNS}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{table}: cannot be read: {why}; give a CSV file in UTF-8") from error
    if not rows:
        raise UserError(f"{table}: has no lines; add lines like a.jpg,b.jpg,c.png")
    return rows


def _path_inside(out: Path, name: str, target: Path) -> Path:
    """Return the path of a name in `out`. Raise UserError if it is outside of `out` or has an unsupported suffix."""
    path = Path(name)
    inside = path.name and not path.is_absolute() and ".." not in path.parts
    # Resolved, because the folder may contain symbolic links.
    if not inside or not Path(os.path.realpath(out / path)).is_relative_to(os.path.realpath(out)):
        raise UserError(f"{name!r}: is outside the output folder; write a name like c.png")
    is_moving_picture = is_animation(target)
    if not path.suffix:
        ending = ".mp4" if is_video(target) else ".png"
        if is_moving_picture:
            ending = target.suffix if target.suffix.lower() in animation_io.WRITTEN else animation_io.OTHER
        path = path.with_suffix(ending)
    _check_suffix(path, is_video(target) or is_moving_picture, is_moving_picture)
    return out / path
