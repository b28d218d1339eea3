"""Choose encoder, quality and pixel format of a swapped video, and try them before any frame is swapped.

A result keeps the bits per channel, the chroma sampling and the interlacing of its target where the encoder can write
them. What is lost is stated in a line for users.
"""

import io
import os
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from fsframework.core.errors import UserError, did_you_mean
from fsframework.media.video_info import COLOURS, Video, require_pyav

AUTO, X264, X265, SVT = "auto", "x264", "x265", "svt-av1"
CODECS = {X264: "libx264", X265: "libx265", SVT: "libsvtav1"}  # FFmpeg's names
HARDWARE = re.compile(r"(h264|hevc|av1)_(nvenc|qsv|amf)")  # FFmpeg's names of hardware encoders with a constant quality
MAX_QUALITY = {SVT: 63}
MAX_CRF = 51  # of the other encoders
DEFAULT_QUALITY = {X264: 18, X265: 20, SVT: 25}  # nearly indistinguishable from the original
DEFAULT_HARDWARE_QUALITY = 20
X264_PRESET = "fast"  # takes 0.75 times as long as `medium` at 1920x1080, with equal PSNR in 1 to 6 % larger files
SAMPLINGS = {"420": (1, 1), "422": (1, 0), "444": (0, 0)}  # base-2 logarithms of a chroma sample's width and height
SEMI_PLANAR = {"yuv420p": "nv12", "yuv422p": "nv16", "yuv420p10le": "p010le", "yuv422p10le": "p210le"}
CONVERT = "convert it, such as by ffmpeg -i IN OUT.mp4"
INTERLACED = 0x40000 | 0x20000000  # FFmpeg's flags of the codec
UNCONVERTED = {  # colour spaces that FFmpeg's converter takes for BT.601 without an error
    8: "YCgCo", 11: "YDzDx", 12: "chromaticity-derived", 13: "chromaticity-derived", 14: "ICtCp", 15: "IPT-C2",
    16: "YCgCo-R", 17: "YCgCo-R",
}  # fmt: skip


@dataclass(frozen=True)
class VideoOptions:
    """How swapped videos are encoded.

    Parameters
    ----------
    encoder:
        `x264`, `x265`, `svt-av1`, or FFmpeg's name of a hardware encoder, such as h264_nvenc. `auto` is x264 for videos
        of 8 bits per channel, and x265 for deeper ones, whose H.264 few players show.
    quality:
        The encoder's constant quality, from 0 (best) to 51, or to 63 for svt-av1. None: one at which results are
        nearly indistinguishable from their targets.

    Raises
    ------
    UserError
        There is no such encoder, or the quality is outside of its range.
    """

    encoder: str = AUTO
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.encoder not in (AUTO, *CODECS) and not HARDWARE.fullmatch(self.encoder):
            known = [AUTO, *CODECS, *_hardware()]
            raise UserError(
                f"encoder: no encoder is called {self.encoder!r}; {did_you_mean(self.encoder, known, _list(known))}"
            )
        most = MAX_QUALITY.get(self.encoder, MAX_CRF)
        if self.quality is not None and not 0 <= self.quality <= most:
            of = "" if self.encoder == AUTO else f" of {self.encoder}"
            raise UserError(f"quality: {self.quality} is outside of the range{of}; give 0 (best) to {most}")

    def check(self) -> None:
        """Raise UserError if the encoder cannot be opened on this machine."""
        if self.encoder != AUTO and not _opens(self.encoder):
            usable = [AUTO, *(name for name in (*CODECS, *_hardware()) if _opens(name))]
            raise UserError(f"encoder: {self.encoder} cannot be opened on this machine; {_list(usable)}")


DEFAULT_VIDEO = VideoOptions()


@dataclass(frozen=True)
class EncoderPlan:
    """The encoder of a result, with its options and pixel format."""

    name: str  # as in `VideoOptions`
    pixel_format: str  # FFmpeg's name of a planar format
    stored: str  # the same, or the semi-planar format of the encoder with the same samples
    options: dict[str, str] = field(default_factory=dict)  # of FFmpeg's encoder
    field_order: Literal["", "top", "bottom"] = ""  # the field that is shown first; "": whole frames
    notes: tuple[str, ...] = ()  # lines for users on what is lost

    @property
    def codec(self) -> str:
        """Return FFmpeg's name of the encoder."""
        return CODECS.get(self.name, self.name)

    @property
    def depth(self) -> int:
        """Return the bits per channel."""
        return 10 if self.pixel_format.endswith("10le") else 8

    @property
    def sampling(self) -> tuple[int, int]:
        """Return the base-2 logarithms of a chroma sample's width and height."""
        return SAMPLINGS[self.pixel_format[3:6]]

    def facts(self) -> dict[str, Any]:
        """Return what the encoded frames depend on, for the description of a job."""
        return {"encoder": self.codec, "pixels": self.pixel_format, "options": self.options, "fields": self.field_order}


def _list(names: list[str]) -> str:
    return f"choose from {', '.join(names)}"


def _hardware() -> list[str]:
    """Return the hardware encoders of the installed FFmpeg; most open on machines with that hardware only."""
    try:
        import av
    except ImportError:
        return []
    return sorted(name for name in av.codecs_available if HARDWARE.fullmatch(name))


def _opens(name: str) -> bool:
    """Return whether an encoder encodes a small frame. Raise UserError if PyAV is missing."""
    require_pyav("encoder")
    small = Video(Path(), 256, 256, 0, (0,), Fraction(1, 25), Fraction(25), 0, (0, 2, 2, 2))
    plan = _plan(small, VideoOptions(name), name)
    return plan is not None and _problem(small, plan, "mp4") is None


def default_plan(video: Video, options: VideoOptions = DEFAULT_VIDEO) -> EncoderPlan:
    """Return how a result is encoded, without a trial. Raise UserError if the installed FFmpeg has no such encoder."""
    for name in _candidates(video, options):
        if (plan := _plan(video, options, name)) is not None:
            return plan
    raise UserError(f"encoder: {options.encoder} is not in the installed FFmpeg; omit the option")


def plan_encoder(video: Video, options: VideoOptions, container: str) -> EncoderPlan:
    """Return how a result is encoded, after a trial with a frame of its size.

    Parameters
    ----------
    video:
        The target.
    options:
        Encoder and quality.
    container:
        FFmpeg's name of the result's container.

    Raises
    ------
    UserError
        The encoder cannot write such frames. The target's colours cannot be converted, or have a high dynamic range
        and the encoder writes 8 bits.
    """
    if not video.is_rgb and (space := UNCONVERTED.get(video.colours[1])):
        raise UserError(f"{video.path}: its colours are stored as {space}, which cannot be converted; {CONVERT}")
    problem: str | None = None
    for name in _candidates(video, options):
        plan = _plan(video, options, name)
        if plan is None:
            continue
        if name == X264 and plan.pixel_format == "yuv420p" and not plan.field_order:
            problem = None  # every build of x264 writes this
        else:
            problem = _problem(video, plan, container)
            if problem is not None and plan.field_order:
                plan = replace(plan, field_order="", options=_options(video, options, name, ""))
                problem = _problem(video, plan, container)
        if problem is not None:
            continue
        if video.is_hdr and plan.depth == 8:
            reason = f"has a high dynamic range, which needs 10 bits, and {name} writes 8"
            raise UserError(f"{video.path}: {reason}; choose --encoder {X265}")
        return replace(plan, notes=_notes(video, plan))
    name = options.encoder
    if container != "mp4" and (plan := _plan(video, options, name)) and _problem(video, plan, "mp4") is None:
        raise UserError(f"{video.path}: {name} does not go into .{container}; choose .mp4 or another --encoder")
    reason = f": {problem}" if problem else ""
    size = f"frames of {video.width} x {video.height} pixels"
    raise UserError(f"{video.path}: {name} cannot write {size}{reason}; choose another --encoder")


def _candidates(video: Video, options: VideoOptions) -> list[str]:
    """Return the encoders that may write a result, the best first."""
    if options.encoder != AUTO:
        return [options.encoder]
    return [X265, X264] if video.depth > 8 and not video.field_order else [X264]


def _plan(video: Video, options: VideoOptions, name: str) -> EncoderPlan | None:
    """Return how an encoder writes a video; None if FFmpeg lacks it or it has no suitable pixel format."""
    import av

    try:
        formats = {each.name for each in av.Codec(CODECS.get(name, name), "w").video_formats or ()}
    except av.codec.codec.UnknownCodecError:
        return None
    pixel_format = _pixel_format(video, formats)
    if pixel_format is None:
        return None
    field_order = video.field_order if name == X264 else ""
    return EncoderPlan(
        name,
        pixel_format,
        SEMI_PLANAR.get(pixel_format, "") if pixel_format not in formats else pixel_format,
        _options(video, options, name, field_order),
        field_order,
    )


def _pixel_format(video: Video, formats: set[str]) -> str | None:
    """Return the planar format of the target's depth and chroma sampling, or the next one, that an encoder writes.

    Chroma samples of two pixels need even sides.
    """
    even = (video.width % 2 == 0, video.height % 2 == 0)
    fits = []
    for name, (across, down) in SAMPLINGS.items():
        if (across and not even[0]) or (down and not even[1]) or (video.turns % 2 and across != down):
            continue
        # Chroma of four rows is interpolated once, to full height: in two steps it would be blurred.
        fits.append((across > video.sampling[0] or down > (video.sampling[1] == 1), name))
    kept = [name for is_coarser, name in fits if not is_coarser]
    coarser = [name for is_coarser, name in reversed(fits) if is_coarser]
    for depth in ("10le", "") if video.depth > 8 else ("",):
        for name in (*kept, *coarser):
            planar = f"yuv{name}p{depth}"
            if planar in formats or SEMI_PLANAR.get(planar) in formats:
                return planar
    return None


def _options(video: Video, options: VideoOptions, name: str, field_order: str) -> dict[str, str]:
    """Return the options of FFmpeg's encoder."""
    quality = str(DEFAULT_QUALITY.get(name, DEFAULT_HARDWARE_QUALITY) if options.quality is None else options.quality)
    if name == X264:
        fields = {"": [], "top": ["tff=1"], "bottom": ["bff=1"]}[field_order]
        params = [*fields, *_light(video, "mastering-display", "cll", whole=True)]
        return {"crf": quality, "preset": X264_PRESET, **({"x264-params": ":".join(params)} if params else {})}
    if name == X265:
        params = ["log-level=none", *_light(video, "master-display", "max-cll", whole=True)]
        return {"crf": quality, "preset": "medium", "a53cc": "1", "x265-params": ":".join(params)}
    if name == SVT:
        params = _light(video, "mastering-display", "content-light", whole=False)
        return {"crf": quality, "preset": "8", **({"svtav1-params": ":".join(params)} if params else {})}
    if name.endswith("_nvenc"):
        return {"rc": "vbr", "cq": quality, "b": "0"}
    return {"global_quality": quality} if name.endswith("_qsv") else {"rc": "cqp", "qp_i": quality, "qp_p": quality}


def _light(video: Video, display: str, level: str, whole: bool) -> list[str]:
    """Return an encoder's parameters of the display and the light level for which a film was graded.

    `whole` writes multiples of 0.00002 (places) and 0.0001 cd/m2.
    """
    texts = []
    if video.mastering:
        units = [50_000] * 8 + [10_000] * 2
        values = [round(v * u) if whole else float(v) for v, u in zip(video.mastering, units, strict=True)]
        red, green, blue, white = (f"({values[i]},{values[i + 1]})" for i in range(0, 8, 2))
        texts.append(f"{display}=G{green}B{blue}R{red}WP{white}L({values[9]},{values[8]})")
    if video.light_level:
        texts.append(f"{level}={video.light_level[0]},{video.light_level[1]}")
    return texts


def _notes(video: Video, plan: EncoderPlan) -> tuple[str, ...]:
    """Return lines for users on what of the target's pictures a result does not keep."""
    notes = []
    if plan.depth < video.depth:
        remedy = f"; --encoder {X265} keeps 10" if plan.depth == 8 else ""
        notes.append(f"{video.depth} bits per channel are written as {plan.depth}, the most of {plan.name}{remedy}")
    coarser = [a > b for a, b in zip(plan.sampling, video.sampling, strict=True)]
    fine = X265 if video.depth > 8 else X264
    if any(coarser):
        notes.append(f"colours are subsampled (4:2:0), because {plan.name} writes no others; --encoder {fine} does")
    elif plan.name == X264 and plan.sampling != SAMPLINGS["420"] and not (video.width % 2 or video.height % 2):
        form = ":".join(plan.pixel_format[3:6])
        notes.append(f"colours stay {form}, which some players do not show as H.264; --encoder {SVT} writes 4:2:0")
    if video.field_order and not plan.field_order:
        remedy = f"; --encoder {X264} keeps it" if plan.name != X264 else ""
        notes.append(f"is interlaced, and {plan.name} writes whole frames{remedy}")
    is_same_frame = not video.turns and not video.mirrored and plan.pixel_format == video.pixel_format
    if video.captions and not (plan.name in CODECS and plan.name != SVT and is_same_frame):
        notes.append(f"closed captions are left out; --encoder {X264} keeps those of upright frames")
    if video.has_alpha:
        notes.append(f"its transparency (alpha channel) is left out: {plan.name} writes none")
    if video.dynamic:
        notes.append(f"{' and '.join(video.dynamic)} metadata is left out; the pictures below it stay")
    return tuple(notes)


def _problem(video: Video, plan: EncoderPlan, container: str) -> str | None:
    """Return why a frame of a video's size cannot be encoded, or None."""
    import av

    try:
        with av.open(io.BytesIO(), "w", format=container) as output:
            stream = add_pictures(output, video, plan)
            frame = av.VideoFrame(video.width, video.height, plan.stored)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts, frame.time_base = 0, video.base
            output.mux(stream.encode(frame))
            output.mux(last_packets(stream, 1))
    except (av.FFmpegError, ValueError) as error:
        return " ".join(str(getattr(error, "strerror", None) or error).split())
    return None


def last_packets(stream: Any, count: int) -> list[Any]:
    """Return the packets that an encoder still holds after `count` frames.

    x265 holds back at least two frames. If there are no more, it leaves their decoding times uninitialised.
    """
    packets: list[Any] = stream.encode()
    if stream.codec_context.name == CODECS[X265] and count <= 2:
        for packet in packets:
            packet.dts = packet.pts
    return packets


def add_pictures(container: Any, video: Video, plan: EncoderPlan) -> Any:
    """Add a stream of pictures to a container for writing; return it."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only; the encoder has no option for this
    stream: Any = container.add_stream(plan.codec, rate=video.rate)
    stream.width, stream.height, stream.pix_fmt = video.width, video.height, plan.stored
    stream.time_base = stream.codec_context.time_base = video.base
    stream.options = dict(plan.options)
    stream.codec_context.sample_aspect_ratio = video.pixel_aspect
    if max(video.durations) > 2 * min(video.durations):
        # MP4 derives durations from decoding times, which are wrong for uneven frames out of order.
        stream.codec_context.max_b_frames = 0
    if plan.field_order:
        stream.codec_context.flags |= INTERLACED
    for key, value in zip(COLOURS, video.colours, strict=True):
        setattr(stream.codec_context, key, value)
    return stream
