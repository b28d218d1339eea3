"""Swap files in one call: make the jobs and run them, as `fsf swap` does."""

from collections.abc import Sequence
from pathlib import Path

from fsframework.inference.face_swapper import FaceSwapper
from fsframework.inference.jobs import AssignmentFiles, SwapOptions, pairs_jobs, parse_mapping, target_jobs
from fsframework.inference.runner import run_jobs
from fsframework.provenance.options import ProvenanceOptions
from fsframework.utils.executors import SERIAL, Executor
from fsframework.utils.shards import WHOLE, JobShard

SIGNED = ProvenanceOptions()
FAST_MODEL = "faceshifter-lfw-64"  # for tests that need any model: a quarter of the default's arithmetic


def swap_target(
    face_swapper: FaceSwapper,
    target: Path,
    out: Path,
    source: Path | None,
    face: str = "largest",
    mappings: Sequence[str] = (),
    preview: int | None = None,
    provenance: ProvenanceOptions = SIGNED,
    shard: JobShard = WHOLE,
    executor: Executor = SERIAL,
) -> int:
    """Swap a picture, a video or a folder; return how many files failed."""
    assignment = AssignmentFiles(face, source, tuple(map(parse_mapping, mappings)))
    jobs = target_jobs(target, out, assignment, SwapOptions(provenance, preview))
    return run_jobs(face_swapper, jobs, shard, executor)


def swap_pairs(
    face_swapper: FaceSwapper,
    table: Path,
    out: Path,
    face: str = "largest",
    mappings: Sequence[str] = (),
    provenance: ProvenanceOptions = SIGNED,
    shard: JobShard = WHOLE,
    executor: Executor = SERIAL,
) -> int:
    """Swap what a CSV file lists; return how many lines failed."""
    assignment = AssignmentFiles(face, None, tuple(map(parse_mapping, mappings)))
    return run_jobs(face_swapper, pairs_jobs(table, out, assignment, SwapOptions(provenance)), shard, executor)


def swap_file(
    face_swapper: FaceSwapper,
    source: Path,
    target: Path,
    out: Path,
    face: str = "largest",
    provenance: ProvenanceOptions = SIGNED,
) -> None:
    """Swap one picture or video."""
    assert swap_target(face_swapper, target, out, source, face, provenance=provenance) == 0
