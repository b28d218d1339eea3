"""Run swap jobs, in this process or on Ray. A failing job of a list does not stop the others.

Results of a list are written atomically. A marker beside each holds a hash of target, sources, model and options. An
interrupted list resumes, because results with a valid marker are skipped. To check it, targets and sources are hashed
again.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from math import gcd
from pathlib import Path
from typing import Any

import click

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.select import largest
from fsframework.inference.assignment import FaceAssignment, IdentityMapping
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.image import swap_image
from fsframework.inference.jobs import AssignmentFiles, JobList, SwapJob, SwapOptions
from fsframework.inference.soft_swap import small_faces_note, soft_swap_note
from fsframework.inference.video import preview, swap_video
from fsframework.media.image_io import read_image
from fsframework.ops.precision import Precision
from fsframework.utils.executors import SERIAL, Executor, RayExecutor, Worker
from fsframework.utils.files import sha256_of, write_text
from fsframework.utils.lock import locked
from fsframework.utils.progress import progress
from fsframework.utils.shards import WHOLE, JobShard

NOTE = ".fsf-swap.json"  # in the folder of results: the settings they depend on
LOCK = ".fsf-lock-"  # beginning of the names of lock files there, one for each shard in work
DONE = ".fsf-done"  # folder of markers, one for each result
THERE = "there"  # return value of a worker for a result that already exists
NAMED = 5  # files that are left out, of which the names are printed
CACHED = 16  # assignments that a worker caches


class JobWorker:
    """The worker of a job list: runs jobs by name.

    Raises UserError if the list's shared assignment cannot be read.
    """

    def __init__(self, face_swapper: FaceSwapper, jobs: JobList) -> None:
        self.face_swapper = face_swapper
        self.jobs = jobs
        self.assignment = lru_cache(CACHED)(self._assignment)
        self.facts = lru_cache(CACHED)(self._facts)
        self.swapper_facts = {
            "swapper": face_swapper.weights_sha256,
            "pasting": [asdict(face_swapper.paster.pasting), face_swapper.paster.sha256()],
            "bf16": face_swapper.bf16,
            "runtime": face_swapper.runtime,
        }
        if jobs.shared is not None:
            self.assignment(jobs.shared)

    def __call__(self, name: str) -> str:
        """Run a job and return the number of swapped faces and its notes, a line each, or `THERE` if its result exists.

        Raises UserError if the job fails.
        """
        job, out = self.jobs.items[name], self.jobs.out
        if isinstance(job, UserError):
            raise job
        if out is None:
            return self._swap(job)
        marker = marker_path(job.out, out)
        content = self._digest(job)
        try:
            if job.out.is_file() and marker.is_file() and marker.read_text(encoding="utf-8").strip() == content:
                return THERE
            for path in (job.out, marker):
                path.parent.mkdir(parents=True, exist_ok=True)
            note = self._swap(job)
        except OSError as error:
            raise UserError(f"{job.out}: cannot be written: {error.strerror or error}") from error
        write_text(marker, f"{content}\n")
        return note

    def shared_facts(self) -> dict[str, Any]:
        """Return the settings that all results depend on, which must be equal in all workers."""
        job = next((item for item in self.jobs.items.values() if isinstance(item, SwapJob)), None)
        if job is None or self.jobs.shared is None:
            return self.swapper_facts
        return self.facts(self.jobs.shared, job.options)

    def _swap(self, job: SwapJob) -> str:
        """Run a job and return its report. Any exception of a library ends this job alone, as a UserError."""
        try:
            return self._swapped(job)
        except (UserError, OSError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split()) or "no reason is given"
            problem = f"cannot be swapped: {type(error).__name__}: {reason}"
            raise UserError(f"{job.target}: {problem}; report it, with the file if you can") from error

    def _swapped(self, job: SwapJob) -> str:
        """Run a job and return its report, a line each, which may be empty.

        That is the number of swapped faces, a note on soft swaps, one on small faces, and one for each sound track.
        """
        faces: Sequence[Face]
        notes: list[str] = []
        began = time.monotonic()
        swapper, assignment, options = self.face_swapper, self.assignment(job.assignment), job.options
        if options.preview is not None:
            faces = preview(swapper, assignment, job.target, job.out, options.preview, options.provenance)
        elif job.kind == "video":
            facts = self.facts(job.assignment, options)
            video = swap_video(
                swapper,
                assignment,
                job.target,
                job.out,
                facts,
                options.provenance,
                options.video,
                options.private_metadata,
            )
            faces, notes = video.faces, video.notes
        else:
            private = options.private_metadata
            swapped = swap_image(swapper, assignment, job.target, job.out, options.provenance, private_metadata=private)
            faces = [face for face, _ in swapped.swaps]
        if self.jobs.out is None and options.summary:
            click.echo(f"{job.out}: {_count(len(faces), 'face')} swapped in {time.monotonic() - began:.1f} s")
        return "\n".join(
            [str(len(faces)), soft_swap_note(faces, swapper.size) or "", small_faces_note(faces) or "", *notes]
        )

    def _assignment(self, files: AssignmentFiles) -> FaceAssignment:
        swapper = self.face_swapper
        if files.source is not None:
            return FaceAssignment(files.face, swapper.read_source(files.source))
        identity = swapper.swapper.identity
        if not identity.metric:
            raise UserError("--map: this model's identity encoder does not compare faces; choose faces by --face")
        threshold = identity.required_match_threshold()
        people = []
        for reference, source in files.mappings:
            frame = read_image(reference)
            z_id = swapper.embed(frame, [largest(swapper.find(frame, str(reference)))])
            people.append(IdentityMapping(z_id, swapper.read_source(source), threshold, str(reference)))
        return FaceAssignment(people=people)

    def _facts(self, files: AssignmentFiles, options: SwapOptions) -> dict[str, Any]:
        """Return the settings and hashes that a result depends on, besides its target."""
        return {
            **self.swapper_facts,
            "marking": asdict(options.provenance),
            "video": asdict(options.video),
            "private_metadata": options.private_metadata,
            "sources": [] if files.source is None else [_content(files.source)],
            "face": files.face,
            "people": [[_content(file) for file in pair] for pair in files.mappings if files.source is None],
        }

    def _digest(self, job: SwapJob) -> str:
        """Return the SHA-256 of everything that a result depends on, including the target's content."""
        facts = {**self.facts(job.assignment, job.options), "target": _content(job.target)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _content(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}; check the path") from error


def run_jobs(face_swapper: FaceSwapper, jobs: JobList, shard: JobShard = WHOLE, executor: Executor = SERIAL) -> int:
    """Run the jobs of a list and return the number of failures.

    Parameters
    ----------
    face_swapper:
        The networks. Ray workers load the same model on the cluster's device.
    jobs, shard:
        The jobs, and the part of them to run. Other processes may run other shards into the same folder.
    executor:
        The executor of the jobs.

    Raises
    ------
    UserError
        The only job fails, the shared assignment cannot be read, or the folder of results cannot be used. Other jobs
        that fail are printed on standard error, at the end.
    """
    worker = JobWorker(face_swapper, jobs)
    facts = worker.shared_facts()
    if not isinstance(executor, RayExecutor):
        return execute(lambda: worker, jobs, facts, shard, executor)
    if face_swapper.loaded_from is None:
        raise ValueError("a face swapper built by FaceSwapper.of cannot be loaded by Ray workers")
    precision: Precision = "bf16" if face_swapper.bf16 else "fp32"
    model, pasting, runtime = face_swapper.loaded_from, face_swapper.paster.pasting, face_swapper.runtime
    load = partial(FaceSwapper, model, executor.device, pasting, precision, None if runtime == "torch" else runtime)
    return execute(partial(_remote_worker, load, jobs, facts), jobs, facts, shard, executor)


def _remote_worker(load: Callable[[], FaceSwapper], jobs: JobList, facts: dict[str, Any]) -> JobWorker:
    """Return the worker of another process. Raise UserError if its model, sources or options differ."""
    worker = JobWorker(load(), jobs)
    if worker.shared_facts() != facts:
        here = socket.gethostname()
        raise UserError(f"{jobs.out}: the worker on {here} has another model or sources; use a shared file system")
    return worker


def execute(
    make: Callable[[], Worker],
    jobs: JobList,
    facts: dict[str, Any],
    shard: JobShard = WHOLE,
    executor: Executor = SERIAL,
) -> int:
    """Run the jobs of a list by workers that `make` builds; return and raise as `run_jobs` does.

    `facts` are the settings that all results depend on.
    """
    out = jobs.out
    if out is None:
        for name, result in executor.run(make, list(jobs.items)):
            if isinstance(result, UserError):
                raise result
            _echo_note(jobs, {name: result})
        return 0
    if jobs.table is None:
        _open_folder(out, facts)
    with _claimed(out, jobs.table, shard):
        return _executed(make, jobs, out, shard, executor)


def _executed(make: Callable[[], Worker], jobs: JobList, out: Path, shard: JobShard, executor: Executor) -> int:
    """Run the jobs of a list into a folder and print what became of them; return the number of failures."""
    names = shard.of(list(jobs.items))
    marked = {name for name in names if _is_marked(jobs.items[name], out)}
    problems: dict[str, UserError] = {}
    notes: dict[str, str] = {}
    done = 0
    began = time.monotonic()
    with progress("swapping", len(names), "files") as ticker:
        for name, result in executor.run(make, names):
            if isinstance(result, UserError):
                problems[name] = result
            elif (
                result == THERE and name in marked
            ):  # it existed before this call, not only before a worker was restarted
                done += 1
            else:
                notes[name] = result
            ticker.advance()
    for name in sorted(problems, key=str if jobs.table is None else int):
        place = "" if jobs.table is None else f"{jobs.table}: line {name}: "
        click.echo(f"{place}{problems[name]}", err=True)
    _echo_note(jobs, notes)
    before = f", {done} of them from before" if done else ""
    swapped = _count(sum(int(text.partition("\n")[0]) for text in notes.values() if text != THERE), "face")
    seconds = time.monotonic() - began
    click.echo(
        f"{len(names) - len(problems)} of {len(names)} files are in {out}{before}; {swapped} swapped in {seconds:.1f} s"
    )
    if jobs.omitted:
        more = f" and {len(jobs.omitted) - NAMED} more" if len(jobs.omitted) > NAMED else ""
        left_out = f"{_count(len(jobs.omitted), 'file')} left out, by a suffix of neither pictures nor videos"
        click.echo(f"{left_out}: {', '.join(jobs.omitted[:NAMED])}{more}", err=True)
    return len(problems)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _echo_note(jobs: JobList, notes: Mapping[str, str]) -> None:
    """Print the first note of each kind on standard error, and how many other jobs have one."""
    noted: dict[str, list[tuple[str, str]]] = {}  # by kind: jobs and their texts
    for name in jobs.items:
        text = notes.get(name, THERE)
        if text == THERE:
            continue
        _, soft, small, *others = text.split("\n")
        for kind, note in (("soft", soft), ("small", small), *((other, other) for other in dict.fromkeys(others))):
            if note:
                noted.setdefault(kind, []).append((name, note))
    for of_kind in noted.values():
        name, text = of_kind[0]
        job = jobs.items[name]
        place = job.target if isinstance(job, SwapJob) else name
        more = f" (and {len(of_kind) - 1} more)" if len(of_kind) > 1 else ""
        click.echo(f"{place}{more}: {text}", err=True)


@contextmanager
def _claimed(out: Path, table: Path | None, shard: JobShard) -> Iterator[None]:
    """Lock a shard of a list of jobs in their folder of results.

    Raises UserError if another process works on this shard, or on one that shares jobs with it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError:  # named by each job
        yield
        return
    # Another list is other work, even if its results go to the same folder.
    prefix = LOCK if table is None else f"{LOCK}{hashlib.sha256(os.fsencode(table.resolve())).hexdigest()[:8]}-"
    with locked(out / f"{prefix}{shard.number}-of-{shard.count}", f"{out}"):
        for file in sorted(out.glob(f"{prefix}*-of-*")):
            number, count = (int(word) for word in file.name.removeprefix(prefix).split("-of-"))
            # Every N-th and every M-th job share one if their first numbers differ by a multiple of gcd(N, M).
            is_own = JobShard(number, count) == shard
            if not is_own and (number - shard.number) % gcd(count, shard.count) == 0:
                with locked(file, f"{out}"):
                    pass
        yield


def marker_path(result: Path, out: Path) -> Path:
    """Return the marker file of a result in `out`."""
    path = out / DONE / result.relative_to(out)
    return path.with_name(f"{path.name}.sha256")


def _is_marked(job: SwapJob | UserError, out: Path) -> bool:
    """Return whether a job's result has a marker."""
    try:
        return isinstance(job, SwapJob) and marker_path(job.out, out).is_file()
    except OSError:  # such as a name that is too long
        return False


def _is_note(file: Path) -> bool:
    """Return whether a file is the note, its temporary file in another process, or a lock."""
    return file.name == NOTE or file.name.startswith((f".{NOTE}.", LOCK))


def _open_folder(out: Path, facts: dict[str, Any]) -> None:
    """Create the folder of results, or reopen it. Raise UserError if it holds anything else."""
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    note = out / NOTE
    try:
        if note.is_file() and note.read_text(encoding="utf-8") == text:
            return
        if out.exists() and (not out.is_dir() or any(not _is_note(file) for file in out.iterdir())):
            raise UserError(f"{out}: has other files, or results of another job; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be used: {error.strerror or error}; choose another folder") from error
    write_text(note, text)
