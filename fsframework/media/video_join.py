"""Join encoded segments of a video with the original's sound and subtitles (see `video_sound`, `video_subtitles`)."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fsframework.media.animation_io import Animation
from fsframework.media.video_io import Video, mp4_options, opened, write_errors
from fsframework.media.video_sound import (
    FORMATS,
    SoundTrack,
    add_aac,
    copied_packets,
    encoded_packets,
    plan_sound,
)
from fsframework.media.video_subtitles import SubtitleTrack, add_text, plan_subtitles, subtitle_packets
from fsframework.utils.files import replacing

DROPPED = re.compile(r"brand|minor_version|^encoder|vendor_id|^duration|^number_of|^bps|_statistics", re.I)
PLACE = "com.apple.quicktime.location.ISO6709"  # of cameras by Apple; MP4 and MOV have it as `location`
PRIVATE = re.compile(r"^location|location\.|gps|serial|owner|(camera|content)\.identifier", re.I)
# QuickTime numbers languages, and FFmpeg finds the number by these codes only; other languages would be lost.
QUICKTIME_LANGUAGES = {
    "deu": "ger", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb", "hye": "arm",
    "kat": "geo", "bod": "tib", "mya": "bur", "msa": "may", "cym": "wel", "eus": "baq", "mkd": "mac", "fre": "fra",
    "cze": "ces", "slo": "slk", "rum": "ron",
}  # fmt: skip


def join(
    segments: list[Path],
    video: Video,
    out: Path,
    finish: Callable[[Path], None] | None = None,
    sound: Sequence[SoundTrack] | None = None,
    subtitles: Sequence[SubtitleTrack] | None = None,
    private_metadata: bool = False,
) -> None:
    """Concatenate encoded segments and add the original's sound and subtitles.

    Parameters
    ----------
    segments:
        Files by `video_io.write`.
    video:
        The original.
    out:
        A path that ends in .mp4, .mov or .mkv, which is replaced atomically.
    finish:
        Function that may change the file before that.
    sound:
        What becomes of each sound track; by default `plan_sound` finds this out.
    subtitles:
        What becomes of each subtitle track; by default `plan_subtitles` finds this out.
    private_metadata:
        Keep the place and serial numbers of the original's metadata.

    Raises
    ------
    UserError
        The original cannot be read, or the result cannot be written.
    """
    import av

    suffix = out.suffix.lower()
    options = {} if suffix == ".mkv" else mp4_options(video)
    tracks = plan_sound(video, suffix) if sound is None else sound
    texts = plan_subtitles(video, suffix) if subtitles is None else subtitles
    with replacing(out) as temporary:
        with (
            opened(segments[0] if isinstance(video, Animation) else video.path) as source,
            opened(segments[0]) as first,
            write_errors(out),
            av.open(str(temporary), "w", format=FORMATS[suffix], options=options) as container,
        ):
            encoded = first.streams.video[0]
            # The decoder of AV1 has a name that no encoder has, by which PyAV would look for one.
            is_av1 = encoded.codec_context.name == "libdav1d"
            output = container.add_stream_from_template(encoded, opaque=is_av1)
            output.time_base = video.base
            if suffix != ".mkv" and encoded.codec_context.name == "hevc":
                output.codec_context.codec_tag = "hvc1"  # Apple's players show no other
            copy_tags = partial(_copy_tags, private=private_metadata)
            copy_tags(source.streams[video.stream], output)
            container.metadata.update(_titles(source.metadata, private_metadata))
            container.set_chapters(_chapters(source, video))
            flows = [_video_packets(segments, video, output)]
            for track in tracks:
                stream = source.streams[track.stream]
                if track.action == "copy":
                    copy = container.add_stream_from_template(stream)
                    copy_tags(stream, copy)
                    flows.append(copied_packets(video, track, copy, hides=suffix != ".mkv"))
                elif track.action == "encode":
                    encoded = add_aac(container, stream)
                    copy_tags(stream, encoded)
                    flows.append(encoded_packets(video, track, encoded))
            for text in texts:
                if text.action == "omit":
                    continue
                stream = source.streams[text.stream]
                if text.action == "copy":
                    written = container.add_stream_from_template(stream)
                else:
                    written = add_text(container, stream, suffix)
                copy_tags(stream, written)
                flows.append(subtitle_packets(video, text, written))
            if suffix == ".mkv":  # fonts of subtitles, such as of ASS
                for font in source.streams.attachments:
                    container.add_attachment(font.name, font.mimetype, font.data)
            for packet in _interleave(flows):
                container.mux(packet)
        if finish is not None:
            finish(temporary)


def _titles(metadata: dict[str, str], private: bool) -> dict[str, str]:
    """Return metadata without what describes the file itself and, unless it is wanted, what is private."""
    tags = {key: value for key, value in metadata.items() if not DROPPED.search(key)}
    if not private:
        return {key: value for key, value in tags.items() if not PRIVATE.search(key)}
    return {"location": tags[PLACE], **tags} if PLACE in tags else tags


def _copy_tags(stream: Any, output: Any, private: bool) -> None:
    """Give a stream of the result the language, title, date and flags of the original's."""
    tags = _titles(stream.metadata, private)
    if output.container.format.name == "mov" and "language" in tags:
        tags["language"] = QUICKTIME_LANGUAGES.get(tags["language"], tags["language"])
    output.metadata.update(tags)
    output.disposition = stream.disposition


def _chapters(source: Any, video: Video) -> list[Any]:
    """Return the chapters of a container, with times of the result."""
    chapters = []
    for chapter in source.chapters():
        start = round(video.start / chapter["time_base"])
        times = {key: max(0, chapter[key] - start) for key in ("start", "end")}
        chapters.append({**chapter, **times})
    return chapters


def _video_packets(segments: list[Path], video: Video, output: Any) -> Iterator[Any]:
    """Yield the packets of all segments for a result's stream, with the durations of their frames."""
    lengths = dict(zip(video.output_times, video.durations, strict=True))
    for segment in segments:
        with opened(segment) as container:
            scale = container.streams.video[0].time_base / video.base
            for packet in container.demux(video=0):
                if packet.size:
                    packet.duration = round(lengths[round(packet.pts * scale)] / scale)
                    packet.stream = output
                    yield packet


def _interleave(flows: list[Iterator[Any]]) -> Iterator[Any]:
    """Yield the packets of several streams in the order of their decoding times, as players expect."""
    heads = [(flow, next(flow, None)) for flow in flows]
    while waiting := [(flow, head) for flow, head in heads if head is not None]:
        flow, head = min(waiting, key=lambda pair: pair[1].dts * pair[1].time_base)
        yield head  # before advancing the flow, which may close the file of this packet
        heads = [(other, next(other, None) if other is flow else packet) for other, packet in heads]
