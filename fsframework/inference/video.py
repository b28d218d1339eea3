"""Swap the faces of a video: detect, track, swap, encode segments, and join them with the original's sound.

An interrupted job resumes from a cache folder beside the result, which holds job.json (the job description), faces.npz
(detections of every frame) and 0000.mp4, 0001.mp4, ... (finished segments; .zip of moving pictures)
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from fsframework.faces.same_person import people_of, split
from fsframework.faces.select import area
from fsframework.faces.steady_mask import MaskSmoother, lead_frames
from fsframework.faces.track import CUT, Track, smooth, thumbnail, track
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.media import animation_io
from fsframework.media.animation_io import Animation, probe, read
from fsframework.media.video_encoder import DEFAULT_VIDEO, VideoOptions, plan_encoder
from fsframework.media.video_io import Video, write
from fsframework.media.video_join import join
from fsframework.media.video_sound import FORMATS, plan_sound
from fsframework.media.video_subtitles import plan_subtitles
from fsframework.provenance.options import ProvenanceOptions, attach_manifest, mark_frame, write_swap
from fsframework.provenance.record import new_payload
from fsframework.utils.files import replacing, write_text
from fsframework.utils.prefetch import ahead
from fsframework.utils.progress import progress

CACHE = 2  # format of the cache folder; folders in another format are removed
SEGMENT = 240  # frames of a segment, encoded as one file
BATCH_BYTES = 1 << 26  # of decoded frames in one batch
EMBEDDED_FRAMES = 8  # of each track, to identify its person


@dataclass(frozen=True)
class SwappedVideo:
    """Report of a swapped video."""

    faces: list[Face]  # the largest of each swapped track
    notes: list[str]  # a line for each track that was not copied, and for what of the pictures is not kept


def swap_video(
    face_swapper: FaceSwapper,
    assignment: FaceAssignment,
    target: Path,
    out: Path,
    job: dict[str, Any],
    marking: ProvenanceOptions,
    encoding: VideoOptions = DEFAULT_VIDEO,
) -> SwappedVideo:
    """Write the video or moving picture `target` with swapped faces to `out` atomically; return its report.

    Parameters
    ----------
    face_swapper:
        The networks.
    assignment:
        The source of each face.
    target:
        A video in any format of FFmpeg, or a moving picture.
    out:
        A path that ends in .mp4 or .mov, or without a manifest in .mkv. For a moving picture also .gif, .webp or .png.
    job:
        The settings that the result depends on besides the target; an interrupted job resumes only if they are equal.
    marking:
        The provenance of the result.
    encoding:
        Encoder and quality.

    Raises
    ------
    UserError
        The video cannot be read, shows no such face, or the result cannot be written.
    """
    video = probe(target)
    suffix = out.suffix.lower()
    is_animated = suffix in animation_io.WRITTEN  # the result
    encoder = None if is_animated else plan_encoder(video, encoding, FORMATS[suffix])
    is_silent = isinstance(video, Animation)
    sound = [] if is_silent else plan_sound(video, suffix)
    subtitles = [] if is_silent else plan_subtitles(video, suffix)
    ending = ".zip" if is_animated else ".mp4"
    folder = out.parent / f".{out.name}.parts"
    _open_folder(
        folder,
        {
            **job,
            "cache": CACHE,
            "encoder": encoder and encoder.facts(),
            "target": str(target.resolve()),
            "seen": [target.stat().st_size, target.stat().st_mtime_ns],
        },
    )
    tracks, sources = plan(face_swapper, assignment, video, folder)
    origin = replace(face_swapper.origin(marking), watermark=_payload(folder))
    segments = []
    count = len(video.times)
    starts = range(0, count, SEGMENT)
    done = [start for start in starts if (folder / f"{start // SEGMENT:04}{ending}").is_file()]
    with progress("swapping", count, "frames", sum(min(SEGMENT, count - start) for start in done)) as ticker:
        for start in starts:
            segment = folder / f"{start // SEGMENT:04}{ending}"
            segments.append(segment)
            if start in done:
                continue
            frames = painted(face_swapper, video, tracks, sources, start, min(start + SEGMENT, count))
            finished = (mark_frame(frame, marking, origin.watermark) for frame in frames)
            counted = _counted(ahead(finished, 8), ticker.advance)
            if encoder is None:
                animation_io.write(segment, video, counted, start)
            else:
                write(segment, video, counted, start, encoder)
    size = (video.width, video.height)

    def finish(path: Path) -> None:
        attach_manifest(path, out, origin, marking, target, assignment.source_paths, size)

    if encoder is None:
        animation_io.join(segments, video, out, finish)
    else:
        join(segments, video, out, finish, sound, subtitles)
    shutil.rmtree(folder, ignore_errors=True)
    notes = [*(each.note(suffix) for each in sound), *(each.note(suffix) for each in subtitles)]
    lost = [*(encoder.notes if encoder else ()), *(note for note in notes if note is not None)]
    return SwappedVideo([tracks[index].largest() for index in sources], lost)


def _open_folder(folder: Path, job: dict[str, Any]) -> None:
    """Create or reopen the cache folder of a job; the cache of another job is removed."""
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
    """Return the watermark payload of a job's result, which is drawn once."""
    file = folder / "watermark"
    if not file.is_file():
        write_text(file, f"{new_payload():08x}\n")
    return int(file.read_text(encoding="utf-8"), 16)


def plan(
    face_swapper: FaceSwapper, assignment: FaceAssignment, video: Video, folder: Path | None
) -> tuple[list[Track], dict[int, SourceIdentity]]:
    """Return the tracks of a video with smoothed landmarks, and the source of each swapped one, by its index.

    Detections are cached in `folder`. Raises UserError if there is no such face.
    """
    detections, cuts, thumbnails = _detections(face_swapper, video, None if folder is None else folder / "faces.npz")
    found = track(detections, cuts, float(video.rate), thumbnails)
    if not found:
        frames = len(detections)
        raise UserError(f"{video.path}: no face was detected in {frames} frames; use a video with whole faces")
    encoder = face_swapper.swapper.identity
    threshold = encoder.match_threshold if encoder.metric else None
    embeddings: dict[int, Tensor] = {}
    people: list[int] | None = None
    if assignment.source is None or (assignment.face != "all" and threshold is not None):
        found, embeddings, people = _identified(face_swapper, video, found, threshold, assignment.source is None)
    tracks = [smooth(raw, float(video.rate)) for raw in found]
    sources = assignment.of_tracks(tracks, embeddings, people)
    if not sources and assignment.source is None:
        raise UserError(f"{video.path}: {assignment.missing(embeddings)}")
    if not sources:
        most = max(sum(one.start <= frame < one.stop for one in tracks) for frame in range(len(detections)))
        raise UserError(
            f"{video.path}: has no such face; up to {most} are visible at once; count them from the left from 1"
        )
    return tracks, sources


def _identified(
    face_swapper: FaceSwapper, video: Video, found: list[Track], threshold: float | None, is_mapped: bool
) -> tuple[list[Track], dict[int, Tensor], list[int] | None]:
    """Split tracks where their embeddings part; return them, the embeddings (n, D) of each, and the person of each.

    Without a threshold, tracks stay as they are, and people are None. A video of one undoubted track shows one person,
    whose embeddings are needed only for reference people.
    """
    if threshold is None:
        return found, _embeddings(face_swapper, video, found), None
    parts = [part for one in found for part in one.parts()]
    if len(parts) == 1 and not is_mapped:
        return found, {}, [0]
    rows = _embeddings(face_swapper, video, parts)
    tracks: list[Track] = []
    embeddings: dict[int, Tensor] = {}
    first = 0
    for one in found:
        indices = range(first, first + len(one.doubts) + 1)
        first = indices.stop
        for group in split([parts[i] for i in indices], [rows[i].float().cpu().numpy() for i in indices], threshold):
            members = [indices[i] for i in group]
            embeddings[len(tracks)] = torch.cat([rows[i] for i in members])
            tracks.append(one.between(parts[members[0]].start, parts[members[-1]].stop))
    people = people_of(tracks, [embeddings[i].float().cpu().numpy() for i in range(len(tracks))], threshold)
    return tracks, embeddings, people


def _detections(
    face_swapper: FaceSwapper, video: Video, cache: Path | None
) -> tuple[list[list[Face]], list[bool], list[list[np.ndarray]]]:
    """Return the faces of every frame, whether the frame begins a new shot, and the thumbnails of the faces."""
    if cache is not None and cache.is_file():
        return _read_faces(cache)
    cuts: list[bool] = []
    with progress("finding faces", len(video.times), "frames") as ticker, torch.inference_mode():
        waiting: deque[np.ndarray] = deque()  # frames that are searched in a group
        frames = _with_cuts(ahead(read(video, rough=True), 16), cuts, waiting)
        detections = []
        thumbnails = []
        for faces in find_faces(face_swapper.detector, frames):
            frame = waiting.popleft()
            detections.append(faces)
            thumbnails.append([thumbnail(frame, face) for face in faces])
            ticker.advance()
    if cache is not None:
        _write_faces(cache, detections, cuts, thumbnails)
    return detections, cuts, thumbnails


def _with_cuts(frames: Iterable[np.ndarray], cuts: list[bool], waiting: deque[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same frames, and append them to `waiting`, and to `cuts` whether each begins a new shot."""
    before = None
    for frame in frames:
        small = cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
        cuts.append(before is not None and float(np.abs(small - before).mean()) > CUT)
        before = small
        waiting.append(frame)
        yield frame


def _write_faces(
    file: Path, detections: list[list[Face]], cuts: list[bool], thumbnails: list[list[np.ndarray]]
) -> None:
    rows = [
        [frame, *face.box, *face.landmarks.reshape(-1), face.score]
        for frame, faces in enumerate(detections)
        for face in faces
    ]
    with replacing(file) as temporary:
        np.savez(
            temporary,
            faces=np.array(rows, dtype=np.float64).reshape(-1, 16),
            cuts=np.array(cuts),
            thumbnails=np.array([each for of_frame in thumbnails for each in of_frame], dtype=np.uint8),
        )


def _read_faces(file: Path) -> tuple[list[list[Face]], list[bool], list[list[np.ndarray]]]:
    with np.load(file, allow_pickle=False) as arrays:
        cuts, rows, pictures = arrays["cuts"].tolist(), arrays["faces"], arrays["thumbnails"]
    detections: list[list[Face]] = [[] for _ in cuts]
    thumbnails: list[list[np.ndarray]] = [[] for _ in cuts]
    for row, picture in zip(rows, pictures, strict=True):
        detections[int(row[0])].append(Face(row[1:5], row[5:15].reshape(5, 2), float(row[15])))
        thumbnails[int(row[0])].append(picture)
    return detections, cuts, thumbnails


def _embeddings(face_swapper: FaceSwapper, video: Video, tracks: list[Track]) -> dict[int, Tensor]:
    """Return embeddings (n, D) of evenly spaced detections of each track, by the track's index."""
    tracks_of_frame: dict[int, list[int]] = {}
    for index, one in enumerate(tracks):
        detected = one.start + np.flatnonzero(one.scores > 0)
        count = min(EMBEDDED_FRAMES, len(detected))
        for frame in detected[np.linspace(0, len(detected) - 1, count).round().astype(int)]:
            tracks_of_frame.setdefault(int(frame), []).append(index)
    rows_of_track: dict[int, list[Tensor]] = {}
    for number, frame in enumerate(read(video, 0, max(tracks_of_frame) + 1, rough=True)):
        if indices := tracks_of_frame.get(number):
            z_id = face_swapper.embed(frame, [tracks[index].face(number) for index in indices])
            for index, row in zip(indices, z_id, strict=True):
                rows_of_track.setdefault(index, []).append(row)
    return {index: torch.stack(rows) for index, rows in rows_of_track.items()}


def painted(
    face_swapper: FaceSwapper,
    video: Video,
    tracks: Sequence[Track],
    sources: dict[int, SourceIdentity],
    start: int,
    stop: int,
) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 of [start, stop) with the tracks' faces swapped, small ones first.

    Masks of occlusions are smoothed along tracks, from some frames before `start`: the result does not depend on
    whether these were swapped in the same process.
    """
    batch_size = max(1, min(16, BATCH_BYTES // (video.width * video.height * 3)))
    smoothers = {index: MaskSmoother(float(video.rate)) for index in sources}
    first = start if face_swapper.paster.segmenter is None else max(0, start - lead_frames(float(video.rate)))
    frames = ahead(read(video, first, stop), 2 * batch_size)
    for number, frame in zip(range(first, start), frames, strict=False):
        indices = _frame_tracks(tracks, sources, number)
        face_swapper.observe(frame, [tracks[index].face(number) for index in indices], [smoothers[i] for i in indices])
    for number in range(start, stop, batch_size):
        group = list(islice(frames, batch_size))
        swaps: list[list[tuple[Face, SourceIdentity]]] = []
        group_smoothers: list[list[MaskSmoother]] = []
        for offset in range(len(group)):
            indices = _frame_tracks(tracks, sources, number + offset)
            swaps.append([(tracks[index].face(number + offset), sources[index]) for index in indices])
            group_smoothers.append([smoothers[index] for index in indices])
        yield from face_swapper.swap_frames(group, swaps, group_smoothers)


def _frame_tracks(tracks: Sequence[Track], sources: Iterable[int], frame: int) -> list[int]:
    """Return the tracks of `sources` in a frame, by index, smallest face first."""
    present = [index for index in sources if tracks[index].start <= frame < tracks[index].stop]
    return sorted(present, key=lambda index: area(tracks[index].face(frame)))


def _counted(frames: Iterable[np.ndarray], advance: Callable[[], None]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame
        advance()


def preview(
    face_swapper: FaceSwapper,
    assignment: FaceAssignment,
    target: Path,
    out: Path,
    count: int,
    marking: ProvenanceOptions,
) -> list[Face]:
    """Write an image of evenly spaced frames of a video, a row for each: original and swap; return the swapped faces.

    Faces are detected in these frames alone. Raises UserError as `swap_video` does.
    """
    video = probe(target)
    indices = np.linspace(0, len(video.times) - 1, count).round().astype(int)
    rows = []
    swapped: list[Face] = []
    for index in dict.fromkeys(indices.tolist()):
        (frame,) = read(video, index, index + 1)
        with torch.inference_mode():
            faces = face_swapper.detector([frame])[0]
        swaps = assignment.of_faces(face_swapper, frame, faces, f"{target}: frame {index + 1}") if faces else []
        swapped += [face for face, _ in swaps]
        rows.append(np.hstack([frame, face_swapper.swap_faces(frame, swaps)]))
    write_swap(out, np.vstack(rows), face_swapper.origin(marking), marking, target, assignment.source_paths)
    return swapped
