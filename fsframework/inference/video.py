"""Swap the faces of a video: detect, track, swap, encode segments, and join them with the original's sound.

An interrupted job resumes from a cache folder beside the result, which holds job.json (the job description), faces.npz
(see `fsframework.inference.video_faces`) and 0000.mp4, 0001.mp4, ... (finished segments; .zip of moving pictures). A
lock beside it keeps other processes from the same result.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsframework.core.errors import UserError
from fsframework.core.types import Face
from fsframework.faces.gaps import frames_of_gaps, without_unseen
from fsframework.faces.same_person import people_of, split
from fsframework.faces.select import area
from fsframework.faces.steady_mask import MaskSmoother, lead_frames
from fsframework.faces.track import Track, smooth, track
from fsframework.faces.turned import find_at_any_angle
from fsframework.faces.visible import MIN_VISIBLE, cut_note, enough_visible, without_cut, without_hidden
from fsframework.inference.assignment import FaceAssignment
from fsframework.inference.face_swapper import FaceSwapper, SourceIdentity
from fsframework.inference.video_faces import FILE, found_faces
from fsframework.media import animation_io
from fsframework.media.animation_io import Animation, probe, read
from fsframework.media.video_encoder import DEFAULT_VIDEO, VideoOptions, plan_encoder
from fsframework.media.video_io import Video, write
from fsframework.media.video_join import join
from fsframework.media.video_sound import FORMATS, plan_sound
from fsframework.media.video_subtitles import plan_subtitles
from fsframework.provenance.options import ProvenanceOptions, attach_manifest, mark_frame, write_swap
from fsframework.provenance.record import new_payload
from fsframework.utils.files import sha256_of, write_text
from fsframework.utils.lock import locked
from fsframework.utils.prefetch import ahead
from fsframework.utils.progress import progress

CACHE = 3  # format of the cache folder; segments in another format are removed
SEGMENT = 240  # frames of a segment, encoded as one file
BATCH_BYTES = 1 << 26  # of decoded frames in one batch
SEEK = 48  # frames that are read rather than skipped
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
    private_metadata: bool = False,
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
    private_metadata:
        Keep the place and serial numbers of the target's metadata.

    Raises
    ------
    UserError
        The video cannot be read, shows no such face, or the result cannot be written.
    """
    video = probe(target)
    with locked(out.parent / f".{out.name}.lock", str(out)):
        return _swapped(face_swapper, assignment, video, out, job, marking, encoding, private_metadata)


def _swapped(
    face_swapper: FaceSwapper,
    assignment: FaceAssignment,
    video: Video,
    out: Path,
    job: dict[str, Any],
    marking: ProvenanceOptions,
    encoding: VideoOptions,
    private_metadata: bool,
) -> SwappedVideo:
    """Write a video with swapped faces, as `swap_video` does, in a folder that no other process uses."""
    target, suffix = video.path, out.suffix.lower()
    is_animated = suffix in animation_io.WRITTEN  # the result
    encoder = None if is_animated else plan_encoder(video, encoding, FORMATS[suffix])
    is_silent = isinstance(video, Animation)
    sound = [] if is_silent else plan_sound(video, suffix)
    subtitles = [] if is_silent else plan_subtitles(video, suffix)
    ending = ".zip" if is_animated else ".mp4"
    folder = out.parent / f".{out.name}.parts"
    content = sha256_of(target)
    _open_folder(folder, {**job, "cache": CACHE, "encoder": encoder and encoder.facts(), "target": content})
    tracks, sources = plan(face_swapper, assignment, video, folder, content)
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
        join(segments, video, out, finish, sound, subtitles, private_metadata)
    shutil.rmtree(folder, ignore_errors=True)
    notes = [*(each.note(suffix) for each in sound), *(each.note(suffix) for each in subtitles)]
    lost = [*(encoder.notes if encoder else ()), *(note for note in notes if note is not None)]
    return SwappedVideo([tracks[index].largest() for index in sources], lost)


def _open_folder(folder: Path, job: dict[str, Any]) -> None:
    """Create or reopen the cache folder of a job; that of another job is emptied, but for the faces of the target."""
    text = json.dumps(job, indent=2, sort_keys=True) + "\n"
    note = folder / "job.json"
    try:
        if folder.exists() and not (note.is_file() and note.read_text(encoding="utf-8") == text):
            for each in folder.iterdir():
                if each.is_dir() and not each.is_symlink():
                    shutil.rmtree(each)
                elif each.name != FILE:
                    each.unlink()
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
    face_swapper: FaceSwapper, assignment: FaceAssignment, video: Video, folder: Path | None, content: str = ""
) -> tuple[list[Track], dict[int, SourceIdentity]]:
    """Return the tracks of a video with smoothed landmarks, and the source of each swapped one, by its index.

    Detections are cached in `folder`, with the SHA-256 of the video's file in their key. Raises UserError if there is
    no such face.
    """
    result = found_faces(face_swapper.detector, video, folder, content)
    frames = len(result.detections)
    found = track(result.detections, result.cuts, float(video.rate), result.thumbnails)
    if not found:
        if result.state.doubtful is not None:
            doubt = "the landmarks of its only faces differ in turned copies, so they may be none"
            raise UserError(f"{video.path}: {doubt}; use a video with whole faces that are not small")
        raise UserError(f"{video.path}: no face was detected in {frames} frames; use a video with whole faces")
    if result.state.doubtful is not None:
        what = f"doubtful faces are left out, from frame {result.state.doubtful + 1} on"
        print(f"note: {video.path}: {what}, as turned copies show none there", file=sys.stderr)
    encoder = face_swapper.swapper.identity
    threshold = encoder.match_threshold if encoder.metric else None
    embeddings: dict[int, Tensor] = {}
    people: list[int] | None = None
    if assignment.source is None or (assignment.face != "all" and threshold is not None):
        found, embeddings, people = _identified(face_swapper, video, found, threshold, assignment.source is None)
    tracks = [_with_shown(smooth(raw, float(video.rate)), video) for raw in found]
    sources = assignment.of_tracks(tracks, embeddings, people, str(video.path))
    if not sources and assignment.source is None:
        raise UserError(f"{video.path}: {assignment.missing(embeddings)}")
    if not sources:
        most = max(sum(one.start <= frame < one.stop for one in tracks) for frame in range(frames))
        raise UserError(
            f"{video.path}: has no such face; up to {most} are visible at once; count them from the left from 1"
        )
    sources = _without_cut(video, tracks, sources)
    tracks, sources = _without_hidden(video, tracks, sources, face_swapper.detector.certain_score)
    seen = without_unseen({index: tracks[index] for index in sources}, _frames_of_gaps(video, tracks, sources))
    return [seen.get(index, one) for index, one in enumerate(tracks)], sources


def _frames_of_gaps(video: Video, tracks: Sequence[Track], sources: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the frames that `without_unseen` needs, with their numbers."""
    wanted = frames_of_gaps([tracks[index] for index in sources])
    if not wanted:
        return
    breaks = [0, *(i for i in range(1, len(wanted)) if wanted[i] - wanted[i - 1] > SEEK), len(wanted)]
    for low, high in pairwise(breaks):
        yield from enumerate(read(video, wanted[low], wanted[high - 1] + 1, rough=True), wanted[low])


def _with_shown(one: Track, video: Video) -> Track:
    """Return a track that says in which frames enough of the face is visible."""
    faces = [one.face(frame) for frame in range(one.start, one.stop)]
    return replace(one, shown=enough_visible(faces, (video.width, video.height)))


def _without_cut(video: Video, tracks: list[Track], sources: dict[int, SourceIdentity]) -> dict[int, SourceIdentity]:
    """Return the sources of tracks that are visible at all; a line on standard error tells of the rest.

    Raises UserError if none is.
    """
    cut = [frame for index in sources for frame in tracks[index].cut_frames()]
    if not cut:
        return sources
    visible = {index: source for index, source in sources.items() if tracks[index].shown_frames()}
    if not visible:
        raise UserError(f"{video.path}: {cut_note(len(sources))}; use a video with whole faces")
    least = f"less than {100 * MIN_VISIBLE:.0f} %"
    what = f"faces are left alone where the frame shows {least} of them, from frame {min(cut) + 1} on"
    print(f"note: {video.path}: {what}", file=sys.stderr)
    return visible


def _without_hidden(
    video: Video, tracks: list[Track], sources: dict[int, SourceIdentity], certain_score: float
) -> tuple[list[Track], dict[int, SourceIdentity]]:
    """Return tracks that are not shown where others hide them, and the sources of those that remain.

    A line on standard error tells of it. Where nothing would remain, all are returned as they are.
    """
    remaining = without_hidden(tracks, certain_score)
    visible = {index: source for index, source in sources.items() if remaining[index].shown_frames()}
    hidden = [set(tracks[index].shown_frames()) - set(remaining[index].shown_frames()) for index in sources]
    if not visible or not any(hidden):
        return tracks, sources
    what = f"faces are left alone where others hide them, from frame {min(set.union(*hidden)) + 1} on"
    print(f"note: {video.path}: {what}", file=sys.stderr)
    return remaining, visible


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
    present = [index for index in sources if tracks[index].is_shown(frame)]
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
            found = find_at_any_angle(face_swapper.detector, frame).faces
        faces, _ = without_cut(found, (video.width, video.height))
        swaps = assignment.of_faces(face_swapper, frame, faces, f"{target}: frame {index + 1}") if faces else []
        swapped += [face for face, _ in swaps]
        rows.append(np.hstack([frame, face_swapper.swap_faces(frame, swaps)]))
    write_swap(out, np.vstack(rows), face_swapper.origin(marking), marking, target, assignment.source_paths)
    return swapped
