"""Frames of videos as a source of pictures. Reads with PyAV (extra [video]), which says where a file is damaged."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fsf_data.sources import Picture
from fsframework.core.errors import UserError
from fsframework.media.video_io import MEND, opened


class Videos:
    """Some frames of each of several videos, named VIDEO/0, VIDEO/1, ... in their order. A `fsf_data.sources.Source`.

    Parameters
    ----------
    place:
        What errors call it.
    files:
        By video.
    choose:
        From a video's number of frames to the places of those that are taken, rising.
    takes:
        How many these are, of every video.

    Raises
    ------
    UserError
        A file cannot be looked at.
    """

    def __init__(self, place: str, files: dict[str, Path], choose: Callable[[int], Sequence[int]], takes: int) -> None:
        self.place, self._files, self._choose = place, files, choose
        self.pictures = []
        for video, file in files.items():
            try:
                info = file.stat()
            except OSError as error:
                raise UserError(f"{file}: cannot be read: {error.strerror or error}; {MEND}") from error
            self.pictures += [Picture(f"{video}/{k}", info.st_size, info.st_mtime_ns) for k in range(takes)]
        self._held: tuple[str, list[np.ndarray]] | None = None  # the frames of the video that was read last

    def read(self, picture: Picture) -> np.ndarray:
        """A frame (H, W, 3) uint8. Raises UserError if the video cannot be read up to it, or has too few frames."""
        video, _, number = picture.name.rpartition("/")
        if self._held is None or self._held[0] != video:
            self._held = video, read_frames(self._files[video], self._choose)
        return self._held[1][int(number)]


def read_frames(file: Path, choose: Callable[[int], Sequence[int]]) -> list[np.ndarray]:
    """Chosen frames of a video, (H, W, 3) uint8 each.

    Parameters
    ----------
    file:
        Of any kind that FFmpeg reads.
    choose:
        From the number of frames to the places of those that are taken, rising.

    Raises
    ------
    UserError
        PyAV is not installed, or the file cannot be read, or ends before the last of these frames.
    """
    with opened(file) as container:
        count = sum(1 for packet in container.demux(video=0) if packet.size)  # a packet holds a frame
    wanted = list(choose(count))
    if not wanted or wanted[-1] >= count:
        raise UserError(f"{file}: has {count} frames, too few of them; {MEND}")
    found = {}
    with opened(file) as container:
        for place, frame in enumerate(container.decode(video=0)):
            if place in wanted:
                found[place] = frame.to_ndarray(format="rgb24")
            if len(found) == len(wanted):
                return [found[place] for place in wanted]
    raise UserError(f"{file}: ends before frame {wanted[len(found)] + 1} of {count}; {MEND}")
