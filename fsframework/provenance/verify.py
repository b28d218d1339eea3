"""Verify a file's provenance: its manifest, XMP and watermark, and the matching ledger entries."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np

from fsframework.core.errors import UserError
from fsframework.media.animation_io import is_animation, probe
from fsframework.media.animation_io import read as read_frames
from fsframework.media.image_io import SOURCE_TYPE, is_marked, read_image
from fsframework.provenance.c2pa import CONSENT, SWAP, XMP_BOX, context, library, media_type
from fsframework.provenance.ledger import lookup
from fsframework.provenance.watermark import Reading, read, read_together
from fsframework.utils.files import sha256_of

FRAMES = 10  # sampled from a video to read its watermark
SIZES = 20  # image sizes from the ledger to which a scaled copy is resampled

Verdict = Literal["intact", "altered", "doubtful", "unsigned", "unmarked"]
MEANINGS: dict[Verdict, str] = {
    "intact": "it is unaltered since it was signed",
    "altered": "it was altered after it was signed",
    "doubtful": "it is unaltered since it was signed, but the certificate is invalid",
    "unsigned": "it has no manifest, or lost it, but other marks declare it synthetic",
    "unmarked": "it carries no mark of its origin",
}


@dataclass(frozen=True)
class Manifest:
    """The content of a C2PA manifest; if it cannot be parsed, only `problems` is set."""

    label: str | None = None
    signer: str | None = None  # name and organisation in its certificate
    made_here: bool = False  # the certificate was generated on this machine
    claim: str | None = None  # the program that wrote the manifest
    time: str | None = None
    synthetic: bool = False  # it declares that a trained algorithm made the whole or a part
    facts: dict[str, str] = field(default_factory=dict)  # this framework's assertion: model, hashes, version, watermark
    consent: str | None = None
    ingredients: list[dict[str, Any]] = field(default_factory=list)  # role, relationship, and its manifest's signer
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Watermark:
    """A watermark: 8 hexadecimal digits; for a video also how many of its sampled frames are readable alone."""

    payload: str
    strength: float
    read: int = 1
    looked: int = 1


@dataclass(frozen=True)
class Report:
    """The result of `verify`: a verdict and every mark that was read."""

    file: str
    verdict: Verdict
    manifest: Manifest | None
    xmp: bool  # XMP declares the file synthetic
    watermark: Watermark | None
    ledger: list[dict[str, Any]]  # entries of the watermark, or else of the file's SHA-256
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the verdict, then the details, a line each."""
        return "\n".join(lines(self))


def verify(file: str | Path) -> Report:
    """Return the provenance report of an image or a video, without network access.

    Raises
    ------
    UserError
        The file cannot be read, or is neither an image nor a video.
    """
    file = Path(file)
    kind = media_type(file)
    notes: list[str] = []
    manifest = read_manifest(file, kind)
    try:
        if kind.startswith("video/"):
            xmp, mark = _video_xmp(file), _video_watermark(file, notes)
        else:
            xmp = is_marked(file)
            mark = _animation_watermark(file) if is_animation(file) else _image_watermark(file)
    except UserError as error:
        if manifest is None or manifest.label is None:
            raise  # no manifest either, so there is nothing to report
        xmp, mark = False, None
        notes.append(str(error).removeprefix(f"{file}: "))
    entries = lookup(watermark=mark.payload) if mark is not None else []
    entries = entries or lookup(sha256=sha256_of(file))
    declared = None if manifest is None else manifest.facts.get("watermark")
    if declared is not None and mark is not None and declared != mark.payload:
        notes.append(f"the watermark {mark.payload} differs from the manifest's, {declared}")
    if declared is not None and mark is None and not notes:
        notes.append("the manifest's watermark cannot be read")
    return Report(str(file), _verdict(manifest, xmp, mark), manifest, xmp, mark, entries, notes)


def _verdict(manifest: Manifest | None, xmp: bool, mark: Watermark | None) -> Verdict:
    if manifest is None:
        return "unsigned" if xmp or mark is not None else "unmarked"
    if not manifest.problems:
        return "intact"
    credentials = all(problem.startswith("signingCredential.") for problem in manifest.problems)
    return "doubtful" if credentials and manifest.label is not None else "altered"


def lines(report: Report) -> list[str]:
    """Return a report as lines of text: the verdict, then the indented details."""
    output = [f"{report.file}: {report.verdict}: {MEANINGS[report.verdict]}"]
    output += [f"  {line}" for line in _about_manifest(report.manifest)]
    output.append(f"  XMP: {'declares it synthetic' if report.xmp else 'none'}")
    output += [f"  {line}" for line in _about_watermark(report)]
    output += [f"  note: {note}" for note in report.notes]
    # Text from foreign manifests must not send control characters to a terminal.
    return ["".join(letter if letter.isprintable() else "?" for letter in line) for line in output]


def _about_manifest(manifest: Manifest | None) -> Iterator[str]:
    if manifest is None:
        yield "manifest: none"
        return
    yield "manifest: cannot be read" if manifest.label is None else f"manifest: {manifest.label}"
    for problem in manifest.problems:
        yield f"problem: {problem}"
    if manifest.label is None:
        return
    signer = manifest.signer or "an unnamed signer"
    authority = (
        "generated on this machine, not issued by an authority" if manifest.made_here else "from an unknown issuer"
    )
    yield f"signed by: {signer}; certificate {authority}"
    yield f"written by: {manifest.claim}" + (f", {manifest.time}" if manifest.time else "")
    yield f"declares: {'made in part or whole by a trained algorithm' if manifest.synthetic else 'no algorithm'}"
    for key, value in manifest.facts.items():
        yield f"{key.replace('_', ' ')}: {value}"
    if manifest.consent is not None:
        yield f"consent: {' '.join(manifest.consent.split())}"
    for ingredient in manifest.ingredients:
        signed = (
            f", signed by: {ingredient['signer']}"
            if ingredient["signer"]
            else f", {ingredient['description'] or 'no manifest'}"
        )
        bad = f", with an invalid manifest: {'; '.join(ingredient['problems'])}" if ingredient["problems"] else ""
        role = "parent" if ingredient["relationship"] == "parentOf" else "component"
        yield f"{role}: {ingredient['title']}{signed}{bad}"


def _about_watermark(report: Report) -> Iterator[str]:
    mark = report.watermark
    if mark is None:
        yield "watermark: none that can be read"
    else:
        frames = f", readable in {mark.read} of {mark.looked} frames alone" if mark.looked > 1 else ""
        unknown = "" if report.ledger else "; no entry in this machine's ledger"
        yield f"watermark: {mark.payload}, strength {mark.strength:.2f}{frames}{unknown}"
    for entry in report.ledger:
        facts = ", ".join(f"{key.replace('_', ' ')} {entry[key]}" for key in LEDGER_KEYS if key in entry)
        left_out = "" if entry.get("provenance", True) else ", without manifest and watermark on request"
        yield f"ledger: made {entry.get('time')}{left_out}: {facts}"


LEDGER_KEYS = ("file", "model", "weights_sha256", "recipe_sha256", "version", "manifest", "consent")


def read_manifest(file: Path, kind: str) -> Manifest | None:
    """Return a file's manifest, or None if it has none. Raise UserError if c2pa-python cannot be loaded."""
    from fsframework.provenance.certificate import anchors

    c2pa = library()
    try:
        with (
            file.open("rb") as opened,
            c2pa.Reader(kind, opened, context=context(c2pa, anchors())) as reader,
        ):
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError.NotSupported:
        return None  # this format holds no manifest
    except c2pa.C2paError as error:
        return Manifest(problems=[" ".join(str(error).split())[:300]])
    return _parse_manifest(store)


def _parse_manifest(store: dict[str, Any]) -> Manifest:
    """Return the active manifest of a manifest store that c2pa-python read."""
    label = store["active_manifest"]
    manifest = store["manifests"][label]
    # Assertions of foreign manifests may hold data of any type.
    assertions = {each["label"]: _mapping(each.get("data")) for each in manifest.get("assertions", [])}
    signature = manifest.get("signature_info", {})
    results = store.get("validation_results", {}).get("activeManifest", {})
    trusted = any(each["code"] == "signingCredential.trusted" for each in results.get("success", []))
    agent = (manifest.get("claim_generator_info") or [{}])[0]
    return Manifest(
        label=label,
        signer=_signer(manifest),
        made_here=trusted,  # the issuer generated here is the only trust anchor in `context`
        claim=" ".join(str(agent[key]) for key in ("name", "version") if key in agent) or "an unnamed program",
        time=signature.get("time"),
        synthetic=any("rainedAlgorithmicMedia" in kind for kind in _source_types(assertions)),
        facts={str(key): str(value) for key, value in assertions.get(SWAP, {}).items()},
        consent=None if (text := assertions.get(CONSENT, {}).get("text")) is None else str(text),
        ingredients=[_ingredient(each, store["manifests"]) for each in manifest.get("ingredients", [])],
        problems=_problems(results),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _source_types(assertions: dict[str, Any]) -> Iterator[str]:
    for label, assertion in assertions.items():
        if label.startswith("c2pa.actions"):
            actions = assertion.get("actions")
            yield from (str(_mapping(each).get("digitalSourceType")) for each in actions or [])


def _signer(manifest: dict[str, Any]) -> str | None:
    signature = manifest.get("signature_info", {})
    return ", ".join(filter(None, [signature.get("common_name"), signature.get("issuer")])) or None


def _ingredient(ingredient: dict[str, Any], manifests: dict[str, Any]) -> dict[str, Any]:
    manifest = manifests.get(ingredient.get("active_manifest", ""))
    return {
        "title": ingredient.get("title"),
        "relationship": ingredient.get("relationship"),
        "description": ingredient.get("description"),
        "manifest": ingredient.get("active_manifest"),
        "signer": None if manifest is None else _signer(manifest),
        "problems": _problems(ingredient.get("validation_results", {}).get("activeManifest", {})),
    }


def _problems(results: dict[str, Any]) -> list[str]:
    """Return the validation failures as text, without `signingCredential.untrusted`, because no trust list is used."""
    failures = [failure for failure in results.get("failure", []) if failure["code"] != "signingCredential.untrusted"]
    return [f"{failure['code']}: {' '.join(str(failure.get('explanation', '')).split())}" for failure in failures]


def _video_xmp(file: Path) -> bool:
    """Return whether a top-level box of an MP4 holds XMP that declares it synthetic."""
    with file.open("rb") as opened:
        return any(SOURCE_TYPE.encode() in box for box in _xmp_boxes(opened))


def _xmp_boxes(file: BinaryIO) -> Iterator[bytes]:
    while len(start := file.read(8)) == 8:
        length, head = int.from_bytes(start[:4], "big"), 8
        if length == 1:  # the length follows, in 64 bits
            length, head = int.from_bytes(file.read(8), "big"), 16
        if length < head:  # 0: extends to the end and holds media; below its header's length: damaged
            return
        end = file.tell() + length - head
        if start[4:] == b"uuid" and length < 10_000_000 and file.read(16) == XMP_BOX:
            yield file.read(length - head - 16)
        file.seek(end)


def _image_watermark(file: Path) -> Watermark | None:
    image = read_image(file)
    reading = _read_scaled([image]) or read(image, search=True)
    return None if reading is None else Watermark(f"{reading.payload:08x}", round(reading.strength, 3))


def _animation_watermark(file: Path) -> Watermark | None:
    """Return the watermark common to up to FRAMES evenly spaced frames of a moving picture."""
    animation = probe(file)
    chosen = {index * len(animation.times) // FRAMES for index in range(FRAMES)}
    return _common_watermark([frame for index, frame in enumerate(read_frames(animation)) if index in chosen])


def _video_watermark(file: Path, notes: list[str]) -> Watermark | None:
    """Return the watermark common to up to FRAMES evenly spaced frames; None without one or without PyAV."""
    try:
        frames = list(_frames(file))
    except ImportError:
        notes.append('the watermark of a video needs PyAV; try: pip install "fsframework[video]"')
        return None
    except (OSError, IndexError, ValueError) as error:  # PyAV raises these types
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{file}: cannot be read as a video: {reason}; it is damaged or in an unsupported format"
        ) from error
    return _common_watermark(frames)


def _common_watermark(frames: list[np.ndarray]) -> Watermark | None:
    """Return the watermark that frames (H, W, 3) uint8 of one size have in common; None without one."""
    reading = _read_scaled(frames)
    if reading is None:
        return None
    readable = sum(reading is not None and reading.payload == reading.payload for reading in map(read, frames))
    return Watermark(f"{reading.payload:08x}", round(reading.strength, 3), readable, len(frames))


def _read_scaled(frames: list[np.ndarray]) -> Reading | None:
    """Return the watermark of frames of one size, as they are or resampled to an original's likely size."""
    reading = read_together(frames)
    if reading is not None or not frames:
        return reading
    height, width = frames[0].shape[:2]
    for size in _sizes(width, height):
        reading = read_together([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
        if reading is not None:
            return reading
    return None


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    """Return ledger sizes of the same aspect ratio, from which a copy may be scaled, newest first."""
    sizes = [entry["size"] for entry in lookup() if isinstance(entry.get("size"), list)]
    distinct = list(dict.fromkeys((size[0], size[1]) for size in sizes if len(size) == 2))
    likely = [
        (wide, high)
        for wide, high in distinct
        if abs(wide * height - high * width) <= max(wide + height, high + width)  # half a pixel lost in rounding
        and (wide, high) != (width, height)
        and width / 4 <= wide <= width * 4
    ]
    return likely[:SIZES]


def _frames(file: Path) -> Iterator[np.ndarray]:
    """Yield up to FRAMES evenly spaced frames of a video, (H, W, 3) uint8 each."""
    import av

    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        length = stream.duration or 0
        start, last = stream.start_time or 0, -1
        for index in range(FRAMES):
            time = start + int(Fraction(index, FRAMES) * length)
            container.seek(time, stream=stream)
            later = (
                candidate
                for candidate in container.decode(stream)
                if candidate.pts is not None and candidate.pts >= time
            )
            frame = next(later, None)
            if frame is not None and frame.pts is not None and frame.pts > last:
                last = frame.pts
                yield frame.to_ndarray(format="rgb24")
