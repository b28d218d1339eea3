"""A video with its faces swapped: found, tracked, painted, encoded in pieces, joined with the original's sound.

Work that was interrupted goes on: what is finished lies in a folder beside the result, with a note of what the job was.
The folder holds faces.npz (what was found in every frame) and 0000.mp4, 0001.mp4, ... (finished pieces).
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.detect_video import find_faces
from fsframework.faces.select import area
from fsframework.faces.track import CUT, Track, smooth, track
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.media.video_io import Video, join, probe, read, write
from fsframework.provenance.options import ProvenanceOptions, attach_manifest, mark_frame, write_swap
from fsframework.provenance.record import new_payload
from fsframework.utils.files import replacing, write_text
from fsframework.utils.prefetch import ahead
from fsframework.utils.progress import progress

PIECE = 240  # frames that are encoded as one
BYTES = 1 << 26  # of frames that are worked on at once
SEEN = 8  # frames of a track by which its person is known


def swap_video(
    converter: FaceSwapper,
    who: FaceAssignment,
    target: Path,
    out: Path,
    job: dict[str, Any],
    marking: ProvenanceOptions,
) -> None:
    """Write the video `target` with swapped faces to `out`, in one step or not at all.

    Parameters
    ----------
    converter:
        Does the work.
    who:
        Whom each face gets.
    target:
        Any file that FFmpeg reads.
    out:
        Ends in .mp4 or .mov, or, where it gets no manifest, in .mkv.
    job:
        What the result depends on besides the target; an interrupted job goes on only if this is equal.
    marking:
        How the result is marked.

    Raises
    ------
    UserError
        The video cannot be read, shows no such face, or the result cannot be written.
    """
    video = probe(target)
    folder = out.parent / f".{out.name}.parts"
    _open_folder(
        folder, {**job, "target": str(target.resolve()), "seen": [target.stat().st_size, target.stat().st_mtime_ns]}
    )
    tracks, sources = plan(converter, who, video, folder)
    origin = replace(converter.origin(marking), watermark=_payload(folder))
    pieces = []
    count = len(video.times)
    starts = range(0, count, PIECE)
    done = [start for start in starts if (folder / f"{start // PIECE:04}.mp4").is_file()]
    with progress("swapping", count, "frames", sum(min(PIECE, count - start) for start in done)) as ticker:
        for start in starts:
            piece = folder / f"{start // PIECE:04}.mp4"
            pieces.append(piece)
            if start in done:
                continue
            frames = painted(converter, video, tracks, sources, start, min(start + PIECE, count))
            finished = (mark_frame(frame, marking, origin.watermark) for frame in frames)
            write(piece, video, _counted(ahead(finished, 8), ticker.advance), start)
    size = (video.width, video.height)
    join(pieces, video, out, lambda place: attach_manifest(place, out, origin, marking, target, who.source_paths, size))
    shutil.rmtree(folder, ignore_errors=True)


def _open_folder(folder: Path, job: dict[str, Any]) -> None:
    """Make the folder of a job, or go on with it; another job's is emptied."""
    text = json.dumps(job, indent=2, sort_keys=True) + "\n"
    note = folder / "job.json"
    try:
        if folder.exists() and not (note.is_file() and note.read_text(encoding="utf-8") == text):
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be used: {error.strerror or error}; remove it") from error
    if not note.is_file():
        write_text(note, text)


def _payload(folder: Path) -> int:
    """The watermark of a job's result, drawn when it began."""
    file = folder / "watermark"
    if not file.is_file():
        write_text(file, f"{new_payload():08x}\n")
    return int(file.read_text(encoding="utf-8"), 16)


def plan(
    converter: FaceSwapper, who: FaceAssignment, video: Video, folder: Path | None
) -> tuple[list[Track], dict[int, SourceIdentity]]:
    """The video's tracks with steady landmarks, and the source of each that is swapped, by its place.

    What was found is kept in `folder`, and taken from there. Raises UserError if there is no such face.
    """
    found, cuts = _found(converter, video, None if folder is None else folder / "faces.npz")
    tracks = [smooth(each, float(video.rate)) for each in track(found, cuts, float(video.rate))]
    if not tracks:
        raise UserError(f"{video.path}: no face was found in {len(found)} frames; use a video that shows whole faces")
    embeddings = {} if who.source is not None else _embeddings(converter, video, tracks)
    sources = who.of_tracks(tracks, embeddings)
    if not sources:
        most = max(sum(each.start <= frame < each.stop for each in tracks) for frame in range(len(found)))
        raise UserError(f"{video.path}: shows no such face; there are up to {most} at once; count from the left from 1")
    return tracks, sources


def _found(converter: FaceSwapper, video: Video, kept: Path | None) -> tuple[list[list[Face]], list[bool]]:
    """The faces of every frame, and whether a new shot begins with it."""
    if kept is not None and kept.is_file():
        return _read_faces(kept)
    cuts: list[bool] = []
    with progress("finding faces", len(video.times), "frames") as ticker, torch.inference_mode():
        frames = _watched(ahead(read(video), 16), cuts)
        found = []
        for faces in find_faces(converter.detector, frames):
            found.append(faces)
            ticker.advance()
    if kept is not None:
        _write_faces(kept, found, cuts)
    return found, cuts


def _watched(frames: Iterable[np.ndarray], cuts: list[bool]) -> Iterator[np.ndarray]:
    """The same frames; notes where one is of another shot than the one before."""
    before = None
    for frame in frames:
        small = cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
        cuts.append(before is not None and float(np.abs(small - before).mean()) > CUT)
        before = small
        yield frame


def _write_faces(file: Path, found: list[list[Face]], cuts: list[bool]) -> None:
    rows = [
        [frame, *face.box, *face.landmarks.reshape(-1), face.score]
        for frame, faces in enumerate(found)
        for face in faces
    ]
    with replacing(file) as temporary:
        np.savez(temporary, faces=np.array(rows, dtype=np.float64).reshape(-1, 16), cuts=np.array(cuts))


def _read_faces(file: Path) -> tuple[list[list[Face]], list[bool]]:
    with np.load(file, allow_pickle=False) as kept:
        cuts, rows = kept["cuts"].tolist(), kept["faces"]
    found: list[list[Face]] = [[] for _ in cuts]
    for row in rows:
        found[int(row[0])].append(Face(row[1:5], row[5:15].reshape(5, 2), float(row[15])))
    return found, cuts


def _embeddings(converter: FaceSwapper, video: Video, tracks: list[Track]) -> dict[int, Tensor]:
    """Embeddings (n, D) of some frames of each track, by its place."""
    asked: dict[int, list[int]] = {}
    for place, one in enumerate(tracks):
        seen = one.start + np.flatnonzero(one.scores > 0)
        for frame in seen[np.linspace(0, len(seen) - 1, min(SEEN, len(seen))).round().astype(int)]:
            asked.setdefault(int(frame), []).append(place)
    found: dict[int, list[Tensor]] = {}
    for number, frame in enumerate(read(video, 0, max(asked) + 1)):
        if places := asked.get(number):
            z_id = converter.embed(frame, [tracks[place].face(number) for place in places])
            for place, row in zip(places, z_id, strict=True):
                found.setdefault(place, []).append(row)
    return {place: torch.stack(rows) for place, rows in found.items()}


def painted(
    converter: FaceSwapper,
    video: Video,
    tracks: Sequence[Track],
    sources: dict[int, SourceIdentity],
    start: int,
    stop: int,
) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 from `start` on, before `stop`, their tracks' faces swapped, small ones first."""
    together = max(1, min(16, BYTES // (video.width * video.height * 3)))
    frames = ahead(read(video, start, stop), 2 * together)
    for first in range(start, stop, together):
        group = list(islice(frames, together))
        wanted = [_wanted(tracks, sources, first + number) for number in range(len(group))]
        yield from converter.swap_frames(group, wanted)


def _wanted(
    tracks: Sequence[Track], sources: dict[int, SourceIdentity], frame: int
) -> list[tuple[Face, SourceIdentity]]:
    seen = [
        (tracks[place].face(frame), source)
        for place, source in sources.items()
        if tracks[place].start <= frame < tracks[place].stop
    ]
    return sorted(seen, key=lambda each: area(each[0]))


def _counted(frames: Iterable[np.ndarray], advance: Callable[[], None]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame
        advance()


def preview(
    converter: FaceSwapper,
    who: FaceAssignment,
    target: Path,
    out: Path,
    count: int,
    marking: ProvenanceOptions,
) -> None:
    """Write a picture of evenly spaced frames of a video, above each other: as they are, and swapped.

    Faces are looked for in these frames alone. Errors as of `swap_video`.
    """
    video = probe(target)
    places = np.linspace(0, len(video.times) - 1, count).round().astype(int)
    rows = []
    for place in dict.fromkeys(places.tolist()):
        (frame,) = read(video, place, place + 1)
        with torch.inference_mode():
            faces = converter.detector([frame])[0]
        swaps = who.of_faces(converter, frame, faces, f"{target}: frame {place + 1}") if faces else []
        rows.append(np.hstack([frame, converter.swap_faces(frame, swaps)]))
    write_swap(out, np.vstack(rows), converter.origin(marking), marking, target, who.source_paths)
