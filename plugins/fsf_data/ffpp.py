"""FaceForensics++ (Roessler et al., arXiv:1901.08971) as published: 1000 videos and their pairs for face swapping."""

import csv
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import Field

from fsf_data.aligned_cache import AlignedFaces, Row, cached
from fsf_data.locate import Located, cut, fill_in, fingerprint, locate
from fsf_data.videos import Videos
from fsframework.core.components import ComponentOptions, Dataset
from fsframework.core.errors import UserError
from fsframework.core.types import Sample
from fsframework.utils.progress import tracked

PAIR = re.compile(r"(\d{3})_(\d{3})")  # target, source: name of a manipulated video
COLUMNS = ["video", "person"]


class FaceForensics(Dataset):
    """Frames of the original videos of FaceForensics++, with its pairs of source and target, for evaluation only.

    The folder layout is that of the download script: original_sequences/youtube/c23/videos/000.mp4 and
    manipulated_sequences/METHOD/c23/videos/000_003.mp4, with the target's number before the source's. Of the
    manipulated videos only the names are used. Frame k of a source is swapped onto frame k of its target. FaceShifter
    (arXiv:1912.13457, section 4.1) takes ten evenly spaced frames per video.

    Some people appear in several videos. Without `people`, each video counts as a separate person, as in that paper;
    retrieval of another video of the same person is then an error. Frames without a detected face get the video's
    median landmarks.
    """

    name = "ffpp"

    class Options(ComponentOptions):
        root: Path = Field(description="Folder that the download script filled.")
        compression: Literal["raw", "c0", "c23", "c40"] = Field("c23", description="Compression of the videos.")
        method: str | None = Field(
            None, description="Method whose manipulated videos define the pairs, such as FaceShifter; null: all."
        )
        frames: int = Field(10, ge=1, description="Number of frames per video.")
        step: int | None = Field(
            None, ge=1, description="Step between frames, around the video's middle; null: evenly over the whole video."
        )
        people: Path | None = Field(
            None, description="CSV file with the columns video and person, for people in several videos."
        )
        cache: Path | None = Field(None, description="Folder for aligned crops; default: ~/.cache/fsframework.")

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops; build it first if it is absent.

        Raises
        ------
        UserError
            The folders do not exist, or a video is missing, unreadable, too short or without a face, or the split is
            train.
        """
        options = self.options
        if self.split == "train":
            raise UserError("ffpp: is for evaluation and has no training split; name other data for the stages")
        root = options.root.expanduser()
        self._pairs = self._named_pairs(root)
        folder = root / "original_sequences" / "youtube" / options.compression / "videos"
        files = {video: folder / f"{video}.mp4" for video in sorted({video for pair in self._pairs for video in pair})}
        source = Videos(str(root), files, self.chosen, options.frames)
        key = fingerprint(source, self.size, self.detector) | {"frames": options.frames, "step": options.step}

        def make() -> Iterator[Row]:
            located = tracked(locate(source, self.detector), "aligning ffpp", len(source.pictures), "frames")
            return cut(_whole_videos(located), self.size)

        self.faces: AlignedFaces = cached(options.cache, key, make)
        self._indices = {name: index for index, name in enumerate(self.faces.names)}
        self._person = _people(options.people) if options.people else {}

    def chosen(self, count: int) -> list[int]:
        """Return the indices of the selected frames of a video of `count` frames; empty if it is too short."""
        frames, step = self.options.frames, self.options.step
        if step is None:
            return [int((k + 0.5) * count / frames) for k in range(frames)] if count >= frames else []
        rest = count - 1 - (frames - 1) * step  # frames before the first and after the last
        return [rest // 2 + k * step for k in range(frames)] if rest >= 0 else []

    def _named_pairs(self, root: Path) -> list[tuple[str, str]]:
        """Return (source, target) of each pair of videos, ordered by target."""
        method = self.options.method or "*"
        folder = f"manipulated_sequences/{method}/{self.options.compression}/videos"
        names = {file.stem for file in root.glob(f"{folder}/*.mp4")}
        pairs = sorted(match.groups() for name in names if (match := PAIR.fullmatch(name)))
        if not pairs:
            raise UserError(f"{root}: {folder} holds no videos called like 000_003.mp4; give FaceForensics++'s folder")
        return [(source, target) for target, source in pairs]

    def pairs(self) -> list[tuple[int, int]]:
        numbers = range(self.options.frames)
        return [
            (self._indices[f"{source}/{k}"], self._indices[f"{target}/{k}"])
            for source, target in self._pairs
            for k in numbers
        ]

    def next_frame(self, index: int) -> int | None:
        video, _, number = self.faces.names[index].rpartition("/")
        following = self._indices.get(f"{video}/{int(number) + 1}")
        return self._indices.get(f"{video}/{int(number) - 1}") if following is None else following

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Sample:
        sample = self.faces[index]
        return Sample(sample.image, sample.name, self._person_of(sample.name), sample.landmarks)

    def names(self) -> list[str]:
        return list(self.faces.names)

    def people(self) -> list[str | None]:
        return [self._person_of(name) for name in self.faces.names]

    def _person_of(self, name: str) -> str:
        """Return the person of a frame, by the frame's name."""
        video = name.rpartition("/")[0]
        return self._person.get(video, video)


def _whole_videos(located: Iterator[Located]) -> Iterator[Located]:
    """Yield the frames, by video, with landmarks filled in where no face was detected.

    Raises
    ------
    UserError
        A video has no detected face.
    """
    for video, frames in groupby(located, key=lambda item: item.picture.person):
        filled = fill_in(list(frames))
        for item in filled:
            if item.face is None:
                reason = item.reason or "no face was found"
                raise UserError(reason if item.frame is None else f"ffpp: video {video}: {reason} in any of its frames")
        yield from filled


def _people(file: Path) -> dict[str, str]:
    """Return the person of each video from a CSV file. Raises UserError if the file is invalid."""
    try:
        with file.expanduser().open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}; give a CSV file"
        ) from error
    if not rows or rows[0] != COLUMNS or any(len(row) != 2 for row in rows):
        raise UserError(f"{file}: is no list of videos and people; begin with {','.join(COLUMNS)}")
    return {video: f"person {person}" for video, person in rows[1:]}
