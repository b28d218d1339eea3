"""Frames of videos as an image source. PyAV (extra [video]) reads them, because it reports damaged files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fsf_data.sources import Picture
from fsframework.core.errors import UserError
from fsframework.media.video_io import MEND, opened


class Videos:
    """Selected frames of videos as a `fsf_data.sources.ImageSource`, named VIDEO/0, VIDEO/1, ... in order.

    Parameters
    ----------
    place:
        Path of the collection, for error messages.
    files:
        Path of each video.
    choose:
        Function from a video's number of frames to the ascending indices of the selected frames.
    takes:
        Number of selected frames per video.

    Raises
    ------
    UserError
        A file does not exist or cannot be accessed.
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
        self._held: tuple[str, list[np.ndarray]] | None = None  # frames of the last video read

    def read(self, picture: Picture) -> np.ndarray:
        """Return a frame (H, W, 3) uint8. Raises UserError if the video is damaged before it, or too short."""
        video, _, number = picture.name.rpartition("/")
        if self._held is None or self._held[0] != video:
            self._held = video, read_frames(self._files[video], self._choose)
        return self._held[1][int(number)]


def read_frames(file: Path, choose: Callable[[int], Sequence[int]]) -> list[np.ndarray]:
    """Return the selected frames of a video, (H, W, 3) uint8 each.

    Parameters
    ----------
    file:
        Video in any format of FFmpeg.
    choose:
        Function from the number of frames to the ascending indices of the selected frames.

    Raises
    ------
    UserError
        PyAV is not installed, or the file cannot be read, or ends before the last selected frame.
    """
    with opened(file) as container:
        count = sum(1 for packet in container.demux(video=0) if packet.size)  # one packet per frame
    selected = list(choose(count))
    if not selected or selected[-1] >= count:
        raise UserError(f"{file}: has {count} frames, too few of them; {MEND}")
    frames = {}
    with opened(file) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in selected:
                frames[index] = frame.to_ndarray(format="rgb24")
            if len(frames) == len(selected):
                return [frames[index] for index in selected]
    raise UserError(f"{file}: ends before frame {selected[len(frames)] + 1} of {count}; {MEND}")
