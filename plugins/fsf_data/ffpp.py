"""FaceForensics++ (Roessler et al., arXiv:1901.08971) as it is published: 1000 videos that others swapped in pairs."""

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

PAIR = re.compile(r"(\d{3})_(\d{3})")  # target, source: the name of a manipulated video
COLUMNS = ["video", "person"]


class FaceForensics(Dataset):
    """Frames of the original videos of FaceForensics++, and its own pairs of videos, for measuring only.

    The folder is laid out as its download script leaves it: original_sequences/youtube/c23/videos/000.mp4 and
    manipulated_sequences/METHOD/c23/videos/000_003.mp4, the target's number before the source's. Only the manipulated
    videos' names are read. Frame k of a source is swapped onto frame k of its target. FaceShifter (arXiv:1912.13457,
    section 4.1) takes ten frames, evenly spread. The data set shows some people several times: without `people`
    every video counts as a person of its own, as in that paper, and a hit on another video of the same person is then
    a miss. Where a frame's face is not found, the video's median landmarks serve.
    """

    name = "ffpp"

    class Options(ComponentOptions):
        root: Path = Field(description="The folder that the download script filled.")
        compression: Literal["raw", "c0", "c23", "c40"] = Field("c23", description="Which copies of the videos.")
        method: str | None = Field(
            None, description="Whose manipulated videos name the pairs, such as FaceShifter; null: all that there are."
        )
        frames: int = Field(10, ge=1, description="How many frames of each video.")
        step: int | None = Field(
            None, ge=1, description="Frames from one to the next, in the video's middle; null: spread over all of it."
        )
        people: Path | None = Field(
            None, description="CSV file with the columns video and person, for videos that show the same person."
        )
        cache: Path | None = Field(None, description="Folder for aligned crops; by default ~/.cache/fsframework.")

    options: Options

    def load(self) -> None:
        """Open the cache of aligned crops; make it first if it is not there.

        Raises
        ------
        UserError
            There are no such folders, a video is missing, cannot be read, is too short or shows no face, or somebody
            asks for people to train on.
        """
        options = self.options
        if self.split == "train":
            raise UserError("ffpp: is for measuring, and has nobody to train on; name other data for the stages")
        root = options.root.expanduser()
        self._pairs = self._named_pairs(root)
        folder = root / "original_sequences" / "youtube" / options.compression / "videos"
        files = {video: folder / f"{video}.mp4" for video in sorted({video for pair in self._pairs for video in pair})}
        source = Videos(str(root), files, self.chosen, options.frames)
        what = fingerprint(source, self.size, self.detector) | {"frames": options.frames, "step": options.step}

        def make() -> Iterator[Row]:
            found = tracked(locate(source, self.detector), "aligning ffpp", len(source.pictures), "frames")
            return cut(_whole_videos(found), self.size)

        self.faces: AlignedFaces = cached(options.cache, what, make)
        self._places = {name: place for place, name in enumerate(self.faces.names)}
        self._person = _people(options.people) if options.people else {}

    def chosen(self, count: int) -> list[int]:
        """The places of the frames that are taken of a video of `count` frames."""
        frames, step = self.options.frames, self.options.step
        if step is None:
            return [int((k + 0.5) * count / frames) for k in range(frames)] if count >= frames else []
        rest = count - 1 - (frames - 1) * step  # frames before the first and behind the last
        return [rest // 2 + k * step for k in range(frames)] if rest >= 0 else []

    def _named_pairs(self, root: Path) -> list[tuple[str, str]]:
        """Source and target video of each pair, in the order of the targets."""
        method = self.options.method or "*"
        where = f"manipulated_sequences/{method}/{self.options.compression}/videos"
        names = {file.stem for file in root.glob(f"{where}/*.mp4")}
        found = sorted(match.groups() for name in names if (match := PAIR.fullmatch(name)))
        if not found:
            raise UserError(f"{root}: {where} holds no videos called like 000_003.mp4; give FaceForensics++'s folder")
        return [(source, target) for target, source in found]

    def pairs(self) -> list[tuple[int, int]]:
        numbers = range(self.options.frames)
        return [
            (self._places[f"{source}/{k}"], self._places[f"{target}/{k}"])
            for source, target in self._pairs
            for k in numbers
        ]

    def next_frame(self, index: int) -> int | None:
        video, _, number = self.faces.names[index].rpartition("/")
        following = self._places.get(f"{video}/{int(number) + 1}")
        return self._places.get(f"{video}/{int(number) - 1}") if following is None else following

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Sample:
        sample = self.faces[index]
        return Sample(sample.image, sample.name, self._shows(sample.name), sample.landmarks)

    def names(self) -> list[str]:
        return list(self.faces.names)

    def people(self) -> list[str | None]:
        return [self._shows(name) for name in self.faces.names]

    def _shows(self, name: str) -> str:
        """The person of a frame, by the frame's name."""
        video = name.rpartition("/")[0]
        return self._person.get(video, video)


def _whole_videos(found: Iterator[Located]) -> Iterator[Located]:
    """The same, video by video, with landmarks where no face was found. Raises UserError for one without any."""
    for video, frames in groupby(found, key=lambda item: item.picture.person):
        filled = fill_in(list(frames))
        for item in filled:
            if item.face is None:
                reason = item.reason or "no face was found"
                raise UserError(reason if item.frame is None else f"ffpp: video {video}: {reason} in any of its frames")
        yield from filled


def _people(file: Path) -> dict[str, str]:
    """The person of each video. Raises UserError if the file is no such list."""
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
