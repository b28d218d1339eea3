"""C2PA manifests: sign a result, describe its origin in assertions, and append it to the local ledger.

The manifest follows C2PA 2 (Coalition for Content Provenance and Authenticity). The target is its parent ingredient and
each source a component ingredient, with their own manifests if present. The digital source type declares that a trained
algorithm made part of the result. File names are left out. Nothing is sent over the network, so signatures carry no
trusted time stamp.
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

SWAP = "org.fsframework.swap"  # labels of this framework's assertions
CONSENT = "org.fsframework.consent"
WATERMARK = "org.fsframework.provenance.watermark.1"  # algorithm name in the soft binding
TARGET, SOURCE = "target", "source"  # labels of ingredients
_SIGNABLE_IMAGES = (".jpg", ".jpeg", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff")
SIGNABLE = (*_SIGNABLE_IMAGES, ".mp4", ".m4v", ".mov")  # formats that hold a manifest
MAX_CONSENT = 10_000  # characters of the consent text
XMP_BOX = bytes.fromhex(
    "be7acfcb97a942e89c71999491e3afac"
)  # UUID of the MP4 box that holds XMP (XMP Specification, part 3)
OPT_OUT = "or leave the manifest out: --no-provenance"

_STARTS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}


def sign(
    file_in: Path,
    file_out: Path,
    target: Path,
    record: ProvenanceRecord,
    sources: Sequence[Path] = (),
    name: Path | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Write a copy of a file with a signed manifest atomically, and append it to the ledger.

    Parameters
    ----------
    file_in:
        JPEG, PNG, WebP, GIF, TIFF, MP4 or MOV.
    file_out:
        May be `file_in`.
    target, sources:
        The input files of the result: the parent ingredient and the component ingredients.
    origin:
        The model, hashes, consent and watermark for the assertions.
    name:
        The file name in the ledger and in errors; by default `file_out`.
    size:
        Width and height in pixels, for the ledger.

    Raises
    ------
    UserError
        No signing identity is available, the file cannot be signed or written, or the ledger cannot be written.
    """
    name = name or file_out
    c2pa, identity = _load_signer()
    ingredients = [_Ingredient(target, TARGET, "parentOf", _is_damaged(c2pa, target))]
    for number, source in enumerate(sources, start=1):
        role = SOURCE if len(sources) == 1 else f"{SOURCE} {number}"
        ingredients.append(_Ingredient(source, role, "componentOf", _is_damaged(c2pa, source)))
    with replacing(file_out) as path:
        try:
            info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
            with (
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(_manifest(record, name, ingredients), context=context(c2pa)) as builder,
            ):
                for ingredient in ingredients:
                    if not ingredient.damaged:
                        with ingredient.file.open("rb") as opened:
                            builder.add_ingredient(ingredient.entry(), media_type(ingredient.file), opened)
                with file_in.open("rb") as unsigned, path.open("w+b") as signed:
                    builder.sign(signer, media_type(file_in), unsigned, signed)
            state, label = _signed(c2pa, path)
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{name}: cannot be written: {error.strerror or error}; make room, {OPT_OUT}") from error
        except Exception as error:  # an error of c2pa-python is reported as a signing error, not as a failed swap
            raise UserError(f"{name}: cannot be signed: {_line(error)}; use another certificate, {OPT_OUT}") from error
        if state not in ("Valid", "Trusted"):
            raise UserError(f"{name}: cannot be signed: its manifest is {state}; use another certificate, {OPT_OUT}")
        facts = {**record.facts(), "file": str(name.absolute()), "sha256": sha256_of(path), "manifest": label}
        optional = {"consent": record.consent, "size": size}
        present = {key: value for key, value in optional.items() if value is not None}
        append({"provenance": True, "watermark": f"{record.watermark:08x}", **facts, **present})


def context(c2pa: Any, anchors: bytes | None = None) -> Any:
    """Return the C2PA context: no thumbnails, no network access, and `anchors` (PEM) as trusted issuers."""
    settings: dict[str, Any] = {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    if anchors is not None:
        settings["trust"] = {"trust_anchors": anchors.decode()}
    return c2pa.Context.from_dict(settings)


def library() -> Any:
    """Return the module c2pa. Raise UserError if it cannot be imported on this system."""
    try:
        import c2pa  # type: ignore[import-untyped]  # imported lazily: everything else works without it
    except Exception as error:  # any exception: the wheel may lack this system's native library
        advice = "try: pip install --force-reinstall c2pa-python"
        raise UserError(f"c2pa-python: cannot be loaded: {_line(error)}; {advice}") from error
    return c2pa


def media_type(path: Path) -> str:
    """Return a file's media type from its first bytes, or else its suffix. Raise UserError if it is unreadable."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    detected = next((kind for magic, kind in _STARTS.items() if start.startswith(magic)), None)
    guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if detected is None and start[4:8] == b"ftyp" and not guessed.startswith("image/"):
        return "video/quicktime" if start[8:10] == b"qt" else "video/mp4"
    return detected or guessed


def add_xmp(file: Path) -> None:
    """Append an XMP box that declares an MP4 synthetic. Raise UserError if the file cannot be written."""
    content = XMP_BOX + XMP.encode()
    try:
        with file.open("ab") as opened:
            opened.write((8 + len(content)).to_bytes(4, "big") + b"uuid" + content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Ingredient:
    """An input file of a result, as an ingredient of its manifest."""

    file: Path
    role: str
    relationship: str
    damaged: bool  # its own manifest cannot be parsed

    def entry(self) -> dict[str, str]:
        description = {"title": self.role, "label": self.role, "relationship": self.relationship}
        if self.damaged:
            description |= {
                "format": media_type(self.file),
                "description": "its own manifest is damaged and was left out",
            }
        return description


def _is_damaged(c2pa: Any, file: Path) -> bool:
    """Return whether a file's manifest cannot be parsed; a manifest that fails validation is not damaged."""
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


def _manifest(record: ProvenanceRecord, out: Path, ingredients: list[_Ingredient]) -> dict[str, Any]:
    agent = {"name": "fsframework", "version": metadata.version("fsframework")}
    payload = f"{record.watermark:08x}"
    actions: list[dict[str, Any]] = [
        {
            "action": "c2pa.opened" if ingredient.relationship == "parentOf" else "c2pa.placed",
            "parameters": {"ingredientIds": [ingredient.role]},
        }
        for ingredient in ingredients
    ]
    actions.append({"action": "c2pa.edited", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent})
    actions.append({"action": "c2pa.watermarked.bound", "softwareAgent": agent})
    assertions = [
        {"label": "c2pa.actions.v2", "data": {"actions": actions}},
        {"label": "c2pa.soft-binding", "data": {"alg": WATERMARK, "blocks": [{"scope": {}, "value": payload}]}},
        {"label": SWAP, "data": {**record.facts(), "watermark": payload}},
    ]
    if record.consent is not None:
        assertions.append({"label": CONSENT, "data": {"text": record.consent}})
    return {
        "claim_generator_info": [agent],
        "title": f"swap{out.suffix.lower()}",
        "assertions": assertions,
        "ingredients": [ingredient.entry() for ingredient in ingredients if ingredient.damaged],
    }


def _signed(c2pa: Any, path: Path) -> tuple[str, str]:
    """Return the validation state and the label of the manifest in a written file."""
    with path.open("rb") as file, c2pa.Reader(media_type(path), file, context=context(c2pa)) as reader:
        store = json.loads(reader.json())
        return str(store["validation_state"]), str(store["active_manifest"])


def _load_signer() -> "tuple[Any, Identity]":
    """Return the module c2pa and the signing identity. Raise UserError if either cannot be loaded."""
    c2pa = library()
    try:
        from fsframework.provenance.certificate import identity
    except ImportError as error:
        raise UserError(f"cryptography: cannot be loaded: {_line(error)}; try: pip install cryptography") from error
    return c2pa, identity()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
