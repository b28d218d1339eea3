"""Choose what happens to each subtitle track of a video before any frame is swapped, and read its packets.

A track is copied where the result's container holds its codec. Otherwise text is converted to the container's own text
format. Pictures of text, which only few containers hold, are left out.
"""

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from fsframework.media.video_io import Video, opened
from fsframework.media.video_sound import FORMATS, CarriedTrack, timed_packets

TRIED = 4  # packets of each track that are muxed to find out whether this is possible
TEXT = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "srt"}  # FFmpeg's encoders of text by suffix


class SubtitleTrack(CarriedTrack):
    """A subtitle track of a video and what becomes of it."""

    def note(self, suffix: str) -> str | None:
        """Return a line for users if the track is not copied to a container with this suffix."""
        if self.action == "copy":
            return None
        name = f"subtitle track {self.number} ({self.codec})"
        remedy = f"; {self.holder} keeps it as it is" if self.holder else ""
        if self.action == "encode":
            return f"{name} is converted to {TEXT[suffix]}, because {suffix} cannot hold it{remedy}"
        return f"{name} is left out, because {suffix} cannot hold it{remedy}"


def plan_subtitles(video: Video, suffix: str) -> list[SubtitleTrack]:
    """Return what happens to each subtitle track in a result with this suffix. Raise UserError for damaged files."""
    tracks = []
    with opened(video.path) as container:
        streams = [
            (stream.index, getattr(stream.codec_context, "name", None)) for stream in container.streams.subtitles
        ]
    for number, (index, codec) in enumerate(streams, 1):
        action: Literal["copy", "encode", "omit"] = "omit"
        holder = None
        if codec is not None and _is_held(video, index, suffix):
            action = "copy"
        elif codec is not None:
            holder = next((other for other in FORMATS if other != suffix and _is_held(video, index, other)), None)
            action = "encode" if _is_converted(video, index, suffix) else "omit"
        tracks.append(SubtitleTrack(index, number, codec or "unknown codec", action, holder))
    return tracks


def _is_held(video: Video, index: int, suffix: str) -> bool:
    """Return whether a container holds a stream: its first packets are written to memory."""
    import av

    with opened(video.path) as source:
        try:
            with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as container:
                output = container.add_stream_from_template(source.streams[index])
                for packet in islice(timed_packets(source, source.streams[index]), TRIED):
                    packet.stream = output
                    container.mux(packet)
        except (av.FFmpegError, ValueError):
            return False
    return True


def _is_converted(video: Video, index: int, suffix: str) -> bool:
    """Return whether the first packets of a stream are text that a container's encoder writes."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as container, opened(video.path) as source:
            output = add_text(container, source.streams[index], suffix)
            for packet in islice(_converted(source, source.streams[index], output), TRIED):
                container.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


def add_text(container: Any, stream: Any, suffix: str) -> Any:
    """Add a stream of text to a container, with the styles of a subtitle stream; return it.

    Raises ValueError if that stream is no text.
    """
    stream.codec_context.open(strict=False)  # or there is no header
    styles = stream.codec_context.subtitle_header
    if not styles:
        raise ValueError("the subtitles are pictures")
    output = container.add_stream(TEXT[suffix])
    output.codec_context.subtitle_header = styles
    output.time_base = output.codec_context.time_base = stream.time_base
    return output


def subtitle_packets(video: Video, track: SubtitleTrack, output: Any) -> Iterator[Any]:
    """Yield the packets of a track for a result's stream, copied or converted, except those before its beginning."""
    with opened(video.path) as container:
        stream = container.streams[track.stream]
        start = round(video.start / stream.time_base)
        packets = timed_packets(container, stream) if track.action == "copy" else _converted(container, stream, output)
        for packet in packets:
            begin, length = packet.pts - start, packet.duration or 0
            if begin < 0:
                begin, length = 0, length + begin
                if length <= 0:
                    continue
            packet.pts = packet.dts = begin
            packet.duration = length
            packet.stream = output
            yield packet


def _converted(container: Any, stream: Any, output: Any) -> Iterator[Any]:
    """Yield the packets of a stream of subtitles, encoded for another stream."""
    stream.codec_context.open(strict=False)
    for packet in timed_packets(container, stream):
        subtitles = stream.codec_context.decode2(packet)
        if not subtitles or not list(subtitles):  # such as the gap between two texts
            continue
        encoded = output.codec_context.encode_subtitle(subtitles)
        encoded.pts = encoded.dts = packet.pts
        encoded.duration, encoded.time_base, encoded.stream = packet.duration, stream.time_base, output
        yield encoded
