"""Choose what happens to each sound track of a video before any frame is swapped, and read its packets.

A track is copied packet by packet where the result's container holds its codec. Otherwise it is encoded as AAC. A track
that FFmpeg cannot decode is left out.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, Literal

from fsframework.media.video_io import Video, opened

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # FFmpeg's names of containers by suffix
TRIED = 24  # packets of each track that are muxed and decoded to find out whether this is possible
GAP = Fraction(1, 10)  # seconds without sound between two frames, from which silence is inserted
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AAC_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")


@dataclass(frozen=True)
class CarriedTrack:
    """A track beside the pictures of a video and what becomes of it."""

    stream: int  # index in the container
    number: int  # among the tracks of its kind, from 1
    codec: str
    action: Literal["copy", "encode", "omit"]
    holder: str | None = None  # suffix of a container that holds the codec, if the result's does not


class SoundTrack(CarriedTrack):
    """A sound track of a video and what becomes of it."""

    def note(self, suffix: str) -> str | None:
        """Return a line for users if the track is not copied to a container with this suffix."""
        if self.action == "copy":
            return None
        if self.action == "encode":
            remedy = f"; {self.holder} keeps it as it is" if self.holder else ""
            return (
                f"sound track {self.number} ({self.codec}) is encoded as AAC, because {suffix} cannot hold it{remedy}"
            )
        return f"sound track {self.number} ({self.codec}) is left out, because it cannot be decoded"


def plan_sound(video: Video, suffix: str) -> list[SoundTrack]:
    """Return what happens to each sound track in a result with this suffix. Raise UserError if the file is damaged."""
    tracks = []
    with opened(video.path) as container:
        streams = [(stream.index, getattr(stream.codec_context, "name", None)) for stream in container.streams.audio]
    for number, (index, codec) in enumerate(streams, 1):
        if codec is None:
            tracks.append(SoundTrack(index, number, "unknown codec", "omit"))
            continue
        if not _has_packets(video, index):
            continue
        if not _is_decodable(video, index):
            tracks.append(SoundTrack(index, number, codec, "omit"))
        elif _is_held(video, index, suffix):
            tracks.append(SoundTrack(index, number, codec, "copy"))
        else:
            holder = next((other for other in FORMATS if other != suffix and _is_held(video, index, other)), None)
            tracks.append(SoundTrack(index, number, codec, "encode", holder))
    return tracks


def _has_packets(video: Video, index: int) -> bool:
    """Return whether a stream has packets."""
    with opened(video.path) as container:
        return any(packet.size for packet in container.demux(container.streams[index]))


def _is_decodable(video: Video, index: int) -> bool:
    """Return whether FFmpeg decodes a sound from the beginning of a stream."""
    with opened(video.path) as container:
        return _first_frame(container, container.streams[index])


def _first_frame(container: Any, stream: Any) -> bool:
    """Return whether the first packets of a sound stream hold a frame."""
    import av

    for packet in islice((packet for packet in container.demux(stream) if not packet.is_discard), TRIED):
        try:
            if packet.decode():
                return True
        except av.FFmpegError:
            continue
    return False


def _is_held(video: Video, index: int, suffix: str) -> bool:
    """Return whether a container holds a stream: its first packets are written to memory, read again and decoded."""
    import av

    memory = io.BytesIO()
    with opened(video.path) as source:
        stream = source.streams[index]
        kind = stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels
        try:
            with av.open(memory, "w", format=FORMATS[suffix]) as container:
                output = container.add_stream_from_template(stream)
                for packet in islice(
                    (packet for packet in timed_packets(source, stream) if not packet.is_discard), TRIED
                ):
                    packet.stream = output
                    container.mux(packet)
            memory.seek(0)
            with av.open(memory, "r") as again:
                copied = again.streams.audio[0]
                found = copied.codec_context.sample_rate, copied.codec_context.layout.nb_channels
                return found == kind and _first_frame(again, copied)
        except (av.FFmpegError, ValueError, IndexError, AttributeError):
            return False


def timed_packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream with both times, except those that an edit list hides after the beginning."""
    begun = False
    for packet in container.demux(stream):
        if not packet.size or (packet.pts is None and packet.dts is None):
            continue
        if packet.is_discard and begun:
            continue
        begun |= not packet.is_discard
        packet.pts = packet.dts if packet.pts is None else packet.pts
        packet.dts = packet.pts if packet.dts is None else packet.dts
        yield packet


def copied_packets(video: Video, track: SoundTrack, output: Any, hides: bool) -> Iterator[Any]:
    """Yield the packets of a track for a result's stream.

    `hides` says whether the result's container hides sound before its beginning. If not, such sound is left out, except
    the last packet, from which the decoder starts.
    """
    with opened(video.path) as container:
        stream = container.streams[track.stream]
        start = round(video.start / stream.time_base)
        for packet in timed_packets(container, stream):
            if packet.is_discard and not hides and packet.pts + (packet.duration or 0) < start:
                continue
            packet.pts -= start
            packet.dts -= start
            packet.stream = output
            yield packet


def encoded_packets(video: Video, track: SoundTrack, output: Any) -> Iterator[Any]:
    """Yield the packets of a track, encoded for a result's stream of AAC."""
    with opened(video.path) as container:
        stream = container.streams[track.stream]
        first = next((packet.pts for packet in timed_packets(container, stream) if not packet.is_discard), 0)
        begin = first * stream.time_base - video.start  # in seconds
    with opened(video.path) as container:
        for frame in _continuous(container.decode(container.streams[track.stream]), begin, video.start):
            for packet in output.encode(frame):
                packet.stream = output
                yield packet
        for packet in output.encode(None):
            packet.stream = output
            yield packet


def _continuous(frames: Iterator[Any], begin: Fraction, start: Fraction) -> Iterator[Any]:
    """Yield frames of sound whose times count samples from the first one's, with silence in place of gaps.

    `start` is subtracted from the frames' own times, which are rough in some containers. They are missing in others;
    then the sound begins at `begin`, in seconds.
    """
    import av

    samples = 0
    for frame in frames:
        rate = frame.sample_rate
        if samples == 0 and frame.pts is not None:
            begin = frame.pts * frame.time_base - start
        due = round(begin * rate) + samples
        gap = 0 if frame.pts is None else round((frame.pts * frame.time_base - start) * rate) - due
        parts = [frame]
        if gap > GAP * rate:
            silence = av.AudioFrame(format=frame.format.name, layout=frame.layout.name, samples=gap)
            silence.sample_rate = rate
            for plane in silence.planes:
                plane.update((b"\x80" if frame.format.name.startswith("u8") else b"\0") * plane.buffer_size)
            parts = [silence, frame]
        for part in parts:
            part.time_base, part.pts = Fraction(1, rate), round(begin * rate) + samples
            samples += part.samples
            yield part


def add_aac(container: Any, stream: Any) -> Any:
    """Add a stream of AAC to a container, with the rate and channels of a sound stream if AAC has them; return it."""
    rate = stream.codec_context.sample_rate
    rate = rate if rate in AAC_RATES else next((each for each in reversed(AAC_RATES) if each >= rate), AAC_RATES[0])
    output = container.add_stream("aac", rate=rate)
    layout = stream.codec_context.layout.name
    channels = stream.codec_context.layout.nb_channels
    output.layout = layout if layout in AAC_LAYOUTS else {1: "mono", 6: "5.1", 8: "7.1"}.get(channels, "stereo")
    output.bit_rate = 96_000 * max(1, min(channels, 8))
    return output
