"""Mark results as synthetic: manifest, XMP and watermark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsframework.core.errors import UserError
from fsframework.media.draw import draw_label
from fsframework.media.image_io import write_image
from fsframework.provenance.c2pa import LONGEST, SIGNED, WITHOUT, _signing, add_xmp, media_type, sign
from fsframework.provenance.ledger import append
from fsframework.provenance.record import ProvenanceRecord
from fsframework.provenance.watermark import embed
from fsframework.utils.files import sha256_of


@dataclass(frozen=True)
class ProvenanceOptions:
    """How results are marked.

    Without `provenance` they get neither manifest nor watermark, which the register remembers, but XMP; `label` draws a
    word on them; `consent` is what the people shown have agreed to, for the manifest. Raises UserError if it is empty,
    too long, or given without provenance.
    """

    provenance: bool = True
    label: bool = False
    consent: str | None = None

    def __post_init__(self) -> None:
        if self.consent is None:
            return
        if not self.consent.strip() or len(self.consent) > LONGEST:
            raise UserError(f"consent: is empty or longer than {LONGEST:,} characters; say who agreed to what")
        if not self.provenance:
            raise UserError("consent: stands in the manifest, which is left out; give one of the two options")

    def check(self, *outs: Path) -> None:
        """Raise UserError, before any work, if nothing can be signed here, or one of these is of another kind."""
        if not self.provenance:
            return
        for out in outs:
            if out.suffix.lower() not in SIGNED:
                raise UserError(f"{out}: no manifest fits into such a file; choose .mp4, {WITHOUT}")
        _signing()


def write_swap(
    out: Path,
    image: np.ndarray,
    origin: ProvenanceRecord,
    marking: ProvenanceOptions,
    target: Path,
    sources: Sequence[Path] = (),
) -> None:
    """Write a picture (H, W, 3) uint8 that was made of a target and a source, marked, in one step or not at all.

    Raises UserError as `write_image` and `seal` do.
    """
    marked = mark_frame(image, marking, origin.watermark)
    size = (image.shape[1], image.shape[0])
    write_image(out, marked, finish=lambda place: attach_manifest(place, out, origin, marking, target, sources, size))


def mark_frame(frame: np.ndarray, marking: ProvenanceOptions, payload: int) -> np.ndarray:
    """A picture or a video's frame (H, W, 3) uint8 with the visible and the invisible mark, as `marking` wants them."""
    if marking.label:
        frame = draw_label(frame)
    return embed(frame, payload) if marking.provenance else frame


def attach_manifest(
    place: Path,
    out: Path,
    origin: ProvenanceRecord,
    marking: ProvenanceOptions,
    target: Path,
    sources: Sequence[Path] = (),
    size: tuple[int, int] | None = None,
) -> None:
    """Give a finished file, whose frames are marked, its manifest, and note it in the register.

    Parameters
    ----------
    place:
        The file, JPEG, PNG, WebP, MP4 or MOV, which is replaced. Videos get XMP in any case, as pictures have it.
    out:
        What it will be called.
    target, sources:
        The files that it was made of.
    size:
        Width and height in pixels, for the register, so that the watermark of smaller copies is found.

    Raises
    ------
    UserError
        It cannot be signed or noted. No file should then get the name `out`.
    """
    if media_type(place) in ("video/mp4", "video/quicktime"):
        add_xmp(place)
    if marking.provenance:
        sign(place, place, target, origin, sources, out, size)
    else:
        facts = {**origin.facts(), "file": str(out.absolute()), "sha256": sha256_of(place)}
        append({"provenance": False, **facts})
