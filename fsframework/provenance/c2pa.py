"""What results say of themselves: a signed manifest, a watermark that leads to it, and a line in the local register.

The manifest is that of C2PA 2 (Coalition for Content Provenance and Authenticity): it names the target as the parent
and the source as a component, with their own manifests if they have any, and says that a trained algorithm made part
of the result. Names of files stay out of it. Nothing is sent anywhere, so signatures carry no foreign time stamp.
"""

import json
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsframework.core.errors import UserError
from fsframework.media.image_io import SOURCE_TYPE, XMP
from fsframework.provenance.ledger import append
from fsframework.provenance.record import ProvenanceRecord
from fsframework.utils.files import replacing, sha256_of

if TYPE_CHECKING:
    from fsframework.provenance.certificate import Identity

SWAP = "org.fsframework.swap"  # our assertions
CONSENT = "org.fsframework.consent"
WATERMARK = "org.fsframework.provenance.watermark.1"  # the algorithm, as a soft binding names it
TARGET, SOURCE = "target", "source"  # what ingredients are called
SIGNED = (".jpg", ".jpeg", ".png", ".webp", ".mp4", ".m4v", ".mov")  # what holds a manifest
LONGEST = 10_000  # characters of a consent
XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # its type in MP4 (XMP Specification, part 3)
WITHOUT = "or leave the manifest out: --no-provenance"

_STARTS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


def sign(
    file_in: Path,
    file_out: Path,
    target: Path,
    origin: ProvenanceRecord,
    sources: Sequence[Path] = (),
    name: Path | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Write a file with a signed manifest, in one step or not at all, and note it in the register.

    Parameters
    ----------
    file_in:
        JPEG, PNG, WebP, MP4 or MOV.
    file_out:
        May be `file_in`.
    target, sources:
        The files that it was made of: the parent, and components.
    name:
        What the register and errors call it; by default `file_out`.
    size:
        As `seal` takes it.

    Raises
    ------
    UserError
        There is nothing to sign with, the file cannot be signed or written, or the register cannot be written.
    """
    name = name or file_out
    c2pa, identity = _signing()
    inputs = [_Input(target, TARGET, "parentOf", _is_damaged(c2pa, target))]
    for number, source in enumerate(sources, start=1):
        role = SOURCE if len(sources) == 1 else f"{SOURCE} {number}"
        inputs.append(_Input(source, role, "componentOf", _is_damaged(c2pa, source)))
    with replacing(file_out) as place:
        try:
            info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
            with (
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(_manifest(origin, name, inputs), context=context(c2pa)) as builder,
            ):
                for each in inputs:
                    if not each.damaged:
                        with each.file.open("rb") as opened:
                            builder.add_ingredient(each.described(), media_type(each.file), opened)
                with file_in.open("rb") as written, place.open("w+b") as signed:
                    builder.sign(signer, media_type(file_in), written, signed)
            state, label = _signed(c2pa, place)
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{name}: cannot be written: {error.strerror or error}; make room, {WITHOUT}") from error
        except Exception as error:  # a library that fails must not look like a defect of the swap
            raise UserError(f"{name}: cannot be signed: {_line(error)}; use another certificate, {WITHOUT}") from error
        if state not in ("Valid", "Trusted"):
            raise UserError(f"{name}: cannot be signed: its manifest is {state}; use another certificate, {WITHOUT}")
        facts = {**origin.facts(), "file": str(name.absolute()), "sha256": sha256_of(place), "manifest": label}
        more = {"consent": origin.consent, "size": size}
        known = {key: value for key, value in more.items() if value is not None}
        append({"provenance": True, "watermark": f"{origin.watermark:08x}", **facts, **known})


def context(c2pa: Any, anchors: bytes | None = None) -> Any:
    """C2PA's settings: no thumbnails, nothing from the network, and whose certificates are known."""
    settings: dict[str, Any] = {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    if anchors is not None:
        settings["trust"] = {"trust_anchors": anchors.decode()}
    return c2pa.Context.from_dict(settings)


def library() -> Any:
    """The module c2pa. Raises UserError if it cannot be loaded here."""
    try:
        import c2pa  # type: ignore[import-untyped]  # here, so that a system without it can do all the rest
    except Exception as error:  # of every kind, where the wheel has no library for the system
        advice = "try: pip install --force-reinstall c2pa-python"
        raise UserError(f"c2pa-python: cannot be loaded: {_line(error)}; {advice}") from error
    return c2pa


def media_type(path: Path) -> str:
    """What kind of file it is, from its first bytes, or else from its suffix. Raises UserError if it is unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    known = next((kind for magic, kind in _STARTS.items() if start.startswith(magic)), None)
    guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if known is None and start[4:8] == b"ftyp" and not guessed.startswith("image/"):
        return "video/quicktime" if start[8:10] == b"qt" else "video/mp4"
    return known or guessed


def add_xmp(file: Path) -> None:
    """Append XMP to an MP4 that says that it is synthetic. Raises UserError if it cannot be written."""
    content = XMP_BOX + XMP.encode()
    try:
        with file.open("ab") as opened:
            opened.write((8 + len(content)).to_bytes(4, "big") + b"uuid" + content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Input:
    """A file that a result was made of."""

    file: Path
    role: str
    relationship: str
    damaged: bool  # its manifest, beyond use

    def described(self) -> dict[str, str]:
        described = {"title": self.role, "label": self.role, "relationship": self.relationship}
        if self.damaged:
            described |= {
                "format": media_type(self.file),
                "description": "its own manifest is damaged and was left out",
            }
        return described


def _is_damaged(c2pa: Any, file: Path) -> bool:
    """Whether a file has a manifest that is too damaged to be kept; one that does not fit its file is kept."""
    kind = media_type(file)
    with file.open("rb") as opened:
        try:
            reader = c2pa.Reader.try_create(kind, opened, context=context(c2pa))
        except c2pa.C2paError.NotSupported:
            return False
        except c2pa.C2paError:
            return True
        if reader is not None:
            reader.close()
        return False


def _manifest(origin: ProvenanceRecord, out: Path, inputs: list[_Input]) -> dict[str, Any]:
    agent = {"name": "fsframework", "version": metadata.version("fsframework")}
    payload = f"{origin.watermark:08x}"
    actions: list[dict[str, Any]] = [
        {
            "action": "c2pa.opened" if each.relationship == "parentOf" else "c2pa.placed",
            "parameters": {"ingredientIds": [each.role]},
        }
        for each in inputs
    ]
    actions.append({"action": "c2pa.edited", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent})
    actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": actions}},
        {"label": "c2pa.soft-binding", "data": {"alg": WATERMARK, "blocks": [{"scope": {}, "value": payload}]}},
        {"label": SWAP, "data": {**origin.facts(), "watermark": payload}},
    ]
    if origin.consent is not None:
        assertions.append({"label": CONSENT, "data": {"text": origin.consent}})
    return {
        "claim_generator_info": [agent],
        "title": f"swap{out.suffix.lower()}",
        "assertions": assertions,
        "ingredients": [each.described() for each in inputs if each.damaged],
    }


def _signed(c2pa: Any, place: Path) -> tuple[str, str]:
    """What the manifest that was written is worth, and its name."""
    with place.open("rb") as file, c2pa.Reader(media_type(place), file, context=context(c2pa)) as reader:
        said = json.loads(reader.json())
        return str(said["validation_state"]), str(said["active_manifest"])


def _signing() -> "tuple[Any, Identity]":
    """The library, and who signs."""
    c2pa = library()
    try:
        from fsframework.provenance.certificate import identity
    except ImportError as error:
        raise UserError(f"cryptography: cannot be loaded: {_line(error)}; try: pip install cryptography") from error
    return c2pa, identity()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
