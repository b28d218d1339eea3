"""What a file says of itself: its manifest, its XMP, its watermark, and what the local register knows of that."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np

from fsframework.core.errors import UserError
from fsframework.media.image_io import SOURCE_TYPE, is_marked, read_image
from fsframework.provenance.c2pa import CONSENT, SWAP, XMP_BOX, context, library, media_type
from fsframework.provenance.ledger import lookup
from fsframework.provenance.watermark import Reading, read, read_together
from fsframework.utils.files import sha256_of

FRAMES = 10  # of a video whose watermark is read
SIZES = 20  # that are tried

Verdict = Literal["intact", "altered", "doubtful", "unsigned", "unmarked"]
MEANINGS: dict[Verdict, str] = {
    "intact": "it is as it was signed",
    "altered": "it was altered after it was signed",
    "doubtful": "it is as it was signed, but the certificate does not count",
    "unsigned": "it has no manifest, or none any more, but other marks say that it is synthetic",
    "unmarked": "it says nothing of how it was made",
}


@dataclass(frozen=True)
class Manifest:
    """What a C2PA manifest says. Of one that cannot be read there are only the problems."""

    label: str | None = None
    signer: str | None = None  # name and organisation, as its certificate says
    made_here: bool = False  # the certificate is the one that was made on this machine
    claim: str | None = None  # the program that wrote the manifest
    time: str | None = None
    synthetic: bool = False  # it says that a trained algorithm made the whole or a part
    facts: dict[str, str] = field(default_factory=dict)  # our own: model, hashes, version, watermark
    consent: str | None = None
    ingredients: list[dict[str, Any]] = field(default_factory=list)  # role, relationship, and its manifest's signer
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Watermark:
    """What was read from the pixels: 8 hexadecimal digits; of a video, and from how many of the frames alone."""

    payload: str
    strength: float
    read: int = 1
    looked: int = 1


@dataclass(frozen=True)
class Report:
    """All that a file says of itself."""

    file: str
    verdict: Verdict
    manifest: Manifest | None
    xmp: bool  # XMP says that it is synthetic
    watermark: Watermark | None
    ledger: list[dict[str, Any]]  # what this machine knows of the watermark, or of the very file
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the verdict, then the details, a line each."""
        return "\n".join(lines(self))


def verify(file: str | Path) -> Report:
    """What a picture or a video says of itself; nothing is fetched from the network.

    Raises
    ------
    UserError
        The file cannot be read, or is neither a picture nor a video.
    """
    file = Path(file)
    kind = media_type(file)
    notes: list[str] = []
    manifest = read_manifest(file, kind)
    try:
        if kind.startswith("video/"):
            xmp, mark = _video_xmp(file), _video_watermark(file, notes)
        else:
            image, xmp = read_image(file), is_marked(file)
            found = _shared([image]) or read(image, search=True)
            mark = None if found is None else Watermark(f"{found.payload:08x}", round(found.strength, 3))
    except UserError as error:
        if manifest is None or manifest.label is None:
            raise  # nothing is known of it at all
        xmp, mark = False, None
        notes.append(str(error).removeprefix(f"{file}: "))
    known = lookup(watermark=mark.payload) if mark is not None else []
    known = known or lookup(sha256=sha256_of(file))
    said = None if manifest is None else manifest.facts.get("watermark")
    if said is not None and mark is not None and said != mark.payload:
        notes.append(f"the watermark {mark.payload} is not the one that the manifest names, {said}")
    if said is not None and mark is None and not notes:
        notes.append("the watermark that the manifest names cannot be read")
    return Report(str(file), _verdict(manifest, xmp, mark), manifest, xmp, mark, known, notes)


def _verdict(manifest: Manifest | None, xmp: bool, mark: Watermark | None) -> Verdict:
    if manifest is None:
        return "unsigned" if xmp or mark is not None else "unmarked"
    if not manifest.problems:
        return "intact"
    credentials = all(problem.startswith("signingCredential.") for problem in manifest.problems)
    return "doubtful" if credentials and manifest.label is not None else "altered"


def lines(report: Report) -> list[str]:
    """A report for people: the verdict, then the details, indented."""
    told = [f"{report.file}: {report.verdict}: {MEANINGS[report.verdict]}"]
    told += [f"  {line}" for line in _about_manifest(report.manifest)]
    told.append(f"  XMP: {'says that it is synthetic' if report.xmp else 'says nothing'}")
    told += [f"  {line}" for line in _about_watermark(report)]
    told += [f"  note: {note}" for note in report.notes]
    # What others wrote must not steer a terminal.
    return ["".join(letter if letter.isprintable() else "?" for letter in line) for line in told]


def _about_manifest(manifest: Manifest | None) -> Iterator[str]:
    if manifest is None:
        yield "manifest: none"
        return
    yield "manifest: cannot be read" if manifest.label is None else f"manifest: {manifest.label}"
    for problem in manifest.problems:
        yield f"problem: {problem}"
    if manifest.label is None:
        return
    who = manifest.signer or "nobody who is named"
    known = "made on this machine, not by a known authority" if manifest.made_here else "which is not known here"
    yield f"signed by: {who}; the certificate is one {known}"
    yield f"written by: {manifest.claim}" + (f", {manifest.time}" if manifest.time else "")
    yield f"says: {'made in part or whole by a trained algorithm' if manifest.synthetic else 'nothing of an algorithm'}"
    for key, value in manifest.facts.items():
        yield f"{key.replace('_', ' ')}: {value}"
    if manifest.consent is not None:
        yield f"consent: {' '.join(manifest.consent.split())}"
    for each in manifest.ingredients:
        signed = f", signed by: {each['signer']}" if each["signer"] else f", {each['description'] or 'no manifest'}"
        bad = f", whose manifest was broken: {'; '.join(each['problems'])}" if each["problems"] else ""
        yield f"{'parent' if each['relationship'] == 'parentOf' else 'component'}: {each['title']}{signed}{bad}"


def _about_watermark(report: Report) -> Iterator[str]:
    mark = report.watermark
    if mark is None:
        yield "watermark: none that can be read"
    else:
        frames = f", of {mark.looked} frames {mark.read} alone are enough" if mark.looked > 1 else ""
        unknown = "" if report.ledger else "; the register of this machine does not know it"
        yield f"watermark: {mark.payload}, strength {mark.strength:.2f}{frames}{unknown}"
    for entry in report.ledger:
        what = ", ".join(f"{key.replace('_', ' ')} {entry[key]}" for key in SHOWN if key in entry)
        left_out = "" if entry.get("provenance", True) else ", without manifest and watermark, as was asked"
        yield f"register: made {entry.get('time')}{left_out}: {what}"


SHOWN = ("file", "model", "weights_sha256", "recipe_sha256", "version", "manifest", "consent")


def read_manifest(file: Path, kind: str) -> Manifest | None:
    """A file's manifest; None if it has none. Raises UserError if C2PA's library cannot be loaded."""
    from fsframework.provenance.certificate import anchors

    c2pa = library()
    try:
        with (
            file.open("rb") as opened,
            c2pa.Reader(kind, opened, context=context(c2pa, anchors())) as reader,
        ):
            said = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError.NotSupported:
        return None  # a kind of file that holds none
    except c2pa.C2paError as error:
        return Manifest(problems=[" ".join(str(error).split())[:300]])
    return _told(said)


def _told(said: dict[str, Any]) -> Manifest:
    """What C2PA's library says of a manifest store, as far as we use it."""
    label = said["active_manifest"]
    manifest = said["manifests"][label]
    # What stands in assertions is of whatever form their author liked.
    assertions = {each["label"]: _mapping(each.get("data")) for each in manifest.get("assertions", [])}
    signature = manifest.get("signature_info", {})
    results = said.get("validation_results", {}).get("activeManifest", {})
    trusted = any(each["code"] == "signingCredential.trusted" for each in results.get("success", []))
    agent = (manifest.get("claim_generator_info") or [{}])[0]
    return Manifest(
        label=label,
        signer=_signer(manifest),
        made_here=trusted,  # ours is the only issuer that `context` was given
        claim=" ".join(str(agent[key]) for key in ("name", "version") if key in agent) or "an unnamed program",
        time=signature.get("time"),
        synthetic=any("rainedAlgorithmicMedia" in kind for kind in _source_types(assertions)),
        facts={str(key): str(value) for key, value in assertions.get(SWAP, {}).items()},
        consent=None if (text := assertions.get(CONSENT, {}).get("text")) is None else str(text),
        ingredients=[_ingredient(each, said["manifests"]) for each in manifest.get("ingredients", [])],
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
    own = manifests.get(ingredient.get("active_manifest", ""))
    return {
        "title": ingredient.get("title"),
        "relationship": ingredient.get("relationship"),
        "description": ingredient.get("description"),
        "manifest": ingredient.get("active_manifest"),
        "signer": None if own is None else _signer(own),
        "problems": _problems(ingredient.get("validation_results", {}).get("activeManifest", {})),
    }


def _problems(results: dict[str, Any]) -> list[str]:
    """What does not verify. That a certificate is unknown is no problem: no list of known ones is used."""
    failures = [each for each in results.get("failure", []) if each["code"] != "signingCredential.untrusted"]
    return [f"{each['code']}: {' '.join(str(each.get('explanation', '')).split())}" for each in failures]


def _video_xmp(file: Path) -> bool:
    """Whether a box of an MP4's top level holds XMP that says that it is synthetic."""
    with file.open("rb") as opened:
        return any(SOURCE_TYPE.encode() in box for box in _xmp_boxes(opened))


def _xmp_boxes(file: BinaryIO) -> Iterator[bytes]:
    while len(start := file.read(8)) == 8:
        length, head = int.from_bytes(start[:4], "big"), 8
        if length == 1:  # the length follows, in 64 bits
            length, head = int.from_bytes(file.read(8), "big"), 16
        if length < head:  # 0: to the end, which is media; less than its head: damaged
            return
        end = file.tell() + length - head
        if start[4:] == b"uuid" and length < 10_000_000 and file.read(16) == XMP_BOX:
            yield file.read(length - head - 16)
        file.seek(end)


def _video_watermark(file: Path, notes: list[str]) -> Watermark | None:
    """The watermark that up to FRAMES evenly spaced frames share, if PyAV can read them."""
    try:
        frames = list(_frames(file))
    except ImportError:
        notes.append('the watermark of videos is read by PyAV: pip install "fsframework[video]"')
        return None
    except (OSError, IndexError, ValueError) as error:  # PyAV's errors are of these kinds
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read as a video: {reason}; it is damaged or of an unusual kind") from error
    found = _shared(frames)
    if found is None:
        return None
    alone = sum(reading is not None and reading.payload == found.payload for reading in map(read, frames))
    return Watermark(f"{found.payload:08x}", round(found.strength, 3), alone, len(frames))


def _shared(frames: list[np.ndarray]) -> Reading | None:
    """The watermark of a picture, or of frames of one size, as they are or as a smaller or larger copy."""
    found = read_together(frames)
    if found is not None or not frames:
        return found
    height, width = frames[0].shape[:2]
    for size in _sizes(width, height):
        found = read_together([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in frames])
        if found is not None:
            return found
    return None


def _sizes(width: int, height: int) -> list[tuple[int, int]]:
    """The sizes that things made on this machine have, and that this may be a copy of, the latest first."""
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
    """Up to FRAMES evenly spaced frames of a video, (H, W, 3) uint8 each."""
    import av

    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        length = stream.duration or 0
        start, seen = stream.start_time or 0, -1
        for place in range(FRAMES):
            wanted = start + int(Fraction(place, FRAMES) * length)
            container.seek(wanted, stream=stream)
            later = (each for each in container.decode(stream) if each.pts is not None and each.pts >= wanted)
            frame = next(later, None)
            if frame is not None and frame.pts is not None and frame.pts > seen:
                seen = frame.pts
                yield frame.to_ndarray(format="rgb24")
